"""HTTP: what clients and the page see of a node. Knows the node's interface, no engine."""
