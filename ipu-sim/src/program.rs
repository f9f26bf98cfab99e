//! What a device can run.
