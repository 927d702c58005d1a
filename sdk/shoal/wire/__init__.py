"""The only translator between our values and the messages of the contract, a module for each noun.

`encode_x` writes every default out in full. `decode_x` reads what a peer sent, so it trusts
nothing: an unset number or enumeration becomes the default of `shoal.spec`, and whatever the
contract does not allow raises `fields.WireError` with the path of the field. Decoding looks at one
value at a time; what holds between values (unknown ports, cycles) is the business of `shoal.check`.
"""
