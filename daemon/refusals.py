"""The control API's own error codes; docs/control-api.md says what each means.

Their meaning never changes.
"""

# Application errors: JSON-RPC leaves -32000 to -32099 to servers.
NOT_TRAINING = -32001
JOIN_FAILED = -32002
JOB_INVALID = -32003
LEARNER_FAILED = -32004
NEEDS_WEBSOCKET = -32005
BAD_ADDRESS = -32006
BAD_PATH = -32007
STORE_FAILED = -32008
BAD_GRAPH = -32009
UNKNOWN_PEER = -32010
NETWORK_REFUSED = -32011
NOT_ALLOWED = -32020
TOO_MANY_SUBSCRIPTIONS = -32021
