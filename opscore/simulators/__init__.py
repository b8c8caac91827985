"""A simulated AgentKit and simulated agents, for the demo, containers and users' own tests.

They speak HTTP only and know nothing of the service's inside. Each is a Starlette application in
its attribute `app`; its behaviour may be changed while it runs.
"""
