//! What is refused of programs before they are loaded or timed, and that nothing else is.
#![cfg(test)]

mod changes;
mod good;
mod mutations;
mod rules;
mod types;
