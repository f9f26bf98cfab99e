//! A cycle-approximate simulator of Graphcore IPUs and IPU-PODs, behind a device driver.
//!
//! A machine is a description ([`spec`]); what it runs is a [`program`]: variables with
//! layouts on tiles, and steps over them. One program has three readers:
//!
//! ```text
//!                    ┌──▶ engine   how many cycles, and where they go
//! program ───────────┼──▶ weigh    how many bytes on every tile, and whether they fit
//!  + machine         └──▶ execute  which values, computed on tile memory
//! ```
//!
//! There is no second path: no cycle is charged for work that the program doesn't contain,
//! and no value is computed by work that isn't charged. A driver ([`device`]) stands in
//! front, as for real hardware: devices are attached, loaded, run and read.
//!
//! A program for two IPUs, written by hand, then loaded, timed and executed
//! (`examples/two_ipus.rs`):
//!
#![doc = concat!("```\n", include_str!("../examples/two_ipus.rs"), "\n```")]
//!
//! The same without a driver: [`engine::time`], [`weigh::weigh`] and [`execute::run`] take a
//! program as it is.

pub mod ids;
pub mod numerics;
pub mod object;
pub mod replica;
pub mod spec;
pub mod threads;
pub mod topology;
pub mod units;

pub mod exchange;
pub mod layout;
pub mod program;
pub mod text;
pub mod verify;
pub mod vertex;
pub mod view;

pub mod collective;
pub mod cost;
pub mod device;
pub mod engine;
pub mod execute;
pub mod network;
pub mod trace;
pub mod weigh;

pub mod error;
