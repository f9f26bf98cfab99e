//! The driver, used as a program outside would use it.
#![cfg(test)]

mod attach;
mod failures;
mod float_exceptions;
mod load;
mod programs;
mod run;
