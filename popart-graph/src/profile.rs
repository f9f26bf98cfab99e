//! What the lines and sections of a program's profile stand for.
//!
//! A program knows its steps by the [`SourceId`] of a line and marks its stretches by a
//! [`SectionId`]; it has names for both, for people. Lowering, which makes the steps, says here
//! what they do in terms of the graph, so that whoever sorts time or bytes matches on types.
//! Left out: the role of steps within their operation, which is the program's own
//! ([`ipu_sim::program::Role`]).

use ipu_sim::ids::IdVec;
use ipu_sim::program::{SectionId, SourceId};

use crate::ir::{OpTag, PartId, Parts, Phase, Purpose, words};

/// Meaning of the lines and sections of one program's profile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// The parts of the model, with the same ids as in the graph, and behind them those that
    /// lowering adds.
    pub parts: Parts,
    /// Every line of the program.
    pub lines: IdVec<SourceId, Line>,
    /// Every section of the program.
    pub sections: IdVec<SectionId, Section>,
}

impl Profile {
    /// The section of this meaning, if the program has it.
    #[must_use]
    pub fn section(&self, wanted: Section) -> Option<SectionId> {
        let mut sections = self.sections.iter();
        let found = sections.find(|&(_, &section)| section == wanted);
        found.map(|(id, _)| id)
    }

    /// Whether a line belongs to `part` or to a part in it.
    #[must_use]
    pub fn is_of(&self, line: SourceId, part: PartId) -> bool {
        let own = self.lines[line].part;
        own.is_some_and(|own| self.parts.is_within(own, part))
    }
}

/// Meaning of one line of the profile: the work that its steps do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Line {
    /// Kind of the steps.
    pub kind: LineKind,
    /// The phase of a training step that they belong to; `None` for what surrounds all phases.
    pub phase: Option<Phase>,
    /// The part of the model that they belong to.
    pub part: Option<PartId>,
    /// Purpose of their operation, where its kind serves several ends.
    pub purpose: Purpose,
}

impl Line {
    /// A line of no operation of the graph.
    pub(crate) fn around(kind: LineKind, part: Option<PartId>) -> Self {
        Self {
            kind,
            phase: None,
            part,
            purpose: Purpose::General,
        }
    }
}

/// Kind of the steps of a line: an operation of the graph, or work that surrounds the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LineKind {
    /// An operation of the graph.
    Op(OpTag),
    /// The copies between IPUs that end a cycle of the pipeline.
    PipelineCopies,
    /// Reading streams from the host.
    HostInput,
    /// Summing results for the host and handing them over.
    HostOutput,
}

impl LineKind {
    /// Name of the kind in profiles.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Op(tag) => tag.name(),
            Self::PipelineCopies => OpTag::IpuCopy.name(),
            Self::HostInput => "host_input",
            Self::HostOutput => "host_output",
        }
    }
}

words! {
    /// A stretch of a program, as its main level has them.
    Section {
        /// Steps that run once, before all others.
        Start = "start",
        /// Micro-batches one after the other, without a pipeline.
        MicroBatches = "micro-batches",
        /// Cycles of a pipeline until every stage has work.
        Fill = "fill",
        /// Cycles of a pipeline in which every stage has work.
        Main = "main",
        /// Cycles of a pipeline in which the first stages have no more work.
        Drain = "drain",
        /// The weight update.
        Update = "update",
        /// Handing over sums to the host.
        Results = "results",
    }
}
