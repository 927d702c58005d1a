"""Events of a cluster over MQTT, each handled once: dedupe, resume, and a broker that may be away.

Begin with `shoal.events.consumer`. It needs `aiomqtt`: install `shoal[events]`, or `shoal-server`, which has it.
"""
