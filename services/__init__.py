"""What the mesh is made of; the parts beneath this package never import each other, but for runtime."""
