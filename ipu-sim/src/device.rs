//! Attach, load, run, read: the simulated driver.
