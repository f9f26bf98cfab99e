//! IPUs, links and routes of a machine.
