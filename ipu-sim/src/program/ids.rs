//! Names of what a program has.

use serde::{Deserialize, Serialize};

use crate::define_ids;

define_ids! {
    /// A variable of a program.
    #[derive(Serialize, Deserialize)]
    VarId, "v";
    /// A layout that variables of a program share.
    #[derive(Serialize, Deserialize)]
    LayoutId, "layout ";
    /// A function of a program.
    #[derive(Serialize, Deserialize)]
    FunctionId, "fn ";
    /// A stream between host and device.
    #[derive(Serialize, Deserialize)]
    StreamId, "stream ";
    /// A buffer in streaming memory.
    #[derive(Serialize, Deserialize)]
    RemoteBufferId, "buffer ";
    /// Where steps come from: a line of the profile.
    #[derive(Serialize, Deserialize)]
    SourceId, "source ";
    /// A stretch of a program.
    #[derive(Serialize, Deserialize)]
    SectionId, "section ";
}
