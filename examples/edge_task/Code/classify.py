"""Names the nearest kind of flower for each row: a task as it was written when all files lay in one folder."""

import csv
import json
import math

with open("iris.csv") as file:
    known = [(float(length), float(width), kind) for length, width, kind in csv.reader(file)]
with open("model.json") as file:
    nearest = json.load(file)["nearest"]
with open("flowers.csv") as file:
    asked = [(float(length), float(width)) for length, width in csv.reader(file)]

with open("Results/kinds.csv", "w") as file:
    for length, width in asked:
        close = sorted(known, key=lambda one: math.hypot(one[0] - length, one[1] - width))[:nearest]
        kinds = [kind for _, _, kind in close]
        kind = max(sorted(set(kinds)), key=kinds.count)
        print(f"{length},{width},{kind}", file=file)
        print(f"a petal of {length} x {width} cm is {kind}")
