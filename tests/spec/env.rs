//! Environment, downward API, expansion, termination messages, standard input.
