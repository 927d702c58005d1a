"""What the mesh is made of.

The packages beneath never import each other; each may import services.runtime.
"""
