//! Threads, channels and locks of the driver.
//!
//! Everything in which two threads of the driver can meet comes from here. The unit tests of this
//! crate put shuttle's in their place, which lets a test try the orders in which the threads may
//! take turns (`interleavings.rs`). A channel holds one message: whoever sends the next one waits
//! until it has been taken.

#[cfg(not(test))]
pub(super) use real::{Builder, JoinHandle, Mutex, Receiver, Sender, channel};
#[cfg(test)]
pub(super) use turns::{Builder, JoinHandle, Mutex, Receiver, Sender, channel};

#[cfg(not(test))]
mod real {
    pub(in crate::device) use std::thread::{Builder, JoinHandle};

    pub(in crate::device) use crossbeam::channel::{Receiver, Sender};
    pub(in crate::device) use parking_lot::Mutex;

    pub(in crate::device) fn channel<T>() -> (Sender<T>, Receiver<T>) {
        crossbeam::channel::bounded(1)
    }
}

#[cfg(test)]
mod turns {
    use std::sync::PoisonError;

    pub(in crate::device) use shuttle::sync::mpsc::{Receiver, SyncSender as Sender};
    use shuttle::sync::{self, MutexGuard};
    pub(in crate::device) use shuttle::thread::{Builder, JoinHandle};

    pub(in crate::device) fn channel<T>() -> (Sender<T>, Receiver<T>) {
        sync::mpsc::sync_channel(1)
    }

    /// As the real one: a panic doesn't poison it.
    #[derive(Debug, Default)]
    pub(in crate::device) struct Mutex<T>(sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(in crate::device) fn new(value: T) -> Self {
            Self(sync::Mutex::new(value))
        }

        pub(in crate::device) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }

        pub(in crate::device) fn get_mut(&mut self) -> &mut T {
            self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
        }
    }
}
