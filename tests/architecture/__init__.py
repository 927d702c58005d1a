"""Architecture tests: the rules of the tree, checked on the tree itself."""
