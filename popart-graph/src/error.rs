//! Everything that this crate refuses, as one type for whoever calls several of its parts.
//!
//! Each part has an error of its own and knows only those below it; this union stands at the door,
//! and nothing in the crate returns it. Faults of the crate's own code are assertions.

use crate::eval::EvalError;
use crate::grad::GradError;
use crate::infer::InferError;
use crate::ir::{Cycle, GraphError};
use crate::passes::PassError;
use crate::plan::PlanError;
use crate::schedule::ScheduleError;
use crate::session::CompileError;
use crate::text::ParseError;
use crate::verify::VerifyError;

/// Error of any part of this crate: of a user's model, text or data.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// The operands or the attributes of an operation.
    #[error(transparent)]
    Infer(#[from] InferError),
    /// The order of operations.
    #[error(transparent)]
    Cycle(#[from] Cycle),
    /// Operations that are added along a graph.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The form of a graph.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// The text of a graph.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// The values of a graph.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// The gradients of a loss.
    #[error(transparent)]
    Grad(#[from] GradError),
    /// The schedule of a graph.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// A pass, or what it has broken.
    #[error(transparent)]
    Pass(#[from] PassError),
    /// The plan of a matrix product.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The compilation of a model.
    #[error(transparent)]
    Compile(#[from] CompileError),
}
