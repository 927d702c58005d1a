"""The keeper: the small process that starts the jobs of a board and outlives its agent.

Standard library only, one thread, no event loop library: it holds exit codes, deadlines and the agent's ends of
the jobs' ports, so that an agent may be killed, restarted or upgraded while every job goes on. The protocol is in
docs/architecture.md, section 2.
"""
