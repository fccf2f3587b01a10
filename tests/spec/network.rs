//! Names, addresses, hosts, resolvers, ports, namespaces, runtime classes.
