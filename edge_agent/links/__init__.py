"""What lies between an agent and everything outside of it, as protocols; simulations have their own."""
