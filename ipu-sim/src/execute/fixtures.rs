//! Small programs for tests.

use std::collections::VecDeque;

use super::{ExecuteError, Host, Memory, RemoteMemory, StreamError, run};
use crate::ids::{IpuId, ReplicaId};
use crate::layout::{AxisSplit, Layout};
use crate::numerics::DType;
use crate::program::{
    ComputeSet, Exchange, Operand, Program, SourceId, Step, StreamId, TileCopy, VarId, VarKind,
    Variable, VertexGroup,
};
use crate::vertex::Vertex;

/// An axis in one place.
pub(super) fn whole(extent: u32) -> AxisSplit {
    AxisSplit::whole(extent)
}

/// Adds a variable on IPU 0.
pub(super) fn var(program: &mut Program, name: &str, dtype: DType, layout: Layout) -> VarId {
    var_on(program, name, dtype, layout, IpuId(0))
}

/// Adds a variable.
pub(super) fn var_on(
    program: &mut Program,
    name: &str,
    dtype: DType,
    layout: Layout,
    ipu: IpuId,
) -> VarId {
    let layout = program.add_layout(layout);
    program.vars.push(Variable {
        name: name.to_owned(),
        dtype,
        ipu,
        layout,
        kind: VarKind::Activation,
    })
}

/// The only source of these programs.
pub(super) fn source(program: &mut Program) -> SourceId {
    program.add_source("test", "test")
}

/// One vertex group on IPU 0.
pub(super) fn compute(
    program: &mut Program,
    vertex: Vertex,
    output: (VarId, &[u8]),
    inputs: &[(VarId, &[u8])],
) -> Step {
    let operand = |&(var, labels): &(VarId, &[u8])| Operand::new(var, labels);
    Step::Compute(ComputeSet {
        source: source(program),
        ipu: IpuId(0),
        vertices: vec![VertexGroup {
            vertex,
            output: operand(&output),
            inputs: inputs.iter().map(operand).collect(),
        }],
    })
}

/// An exchange that copies whole variables on IPU 0.
pub(super) fn exchange(program: &mut Program, copies: &[(VarId, VarId)]) -> Step {
    let copies = copies.iter().map(|&(src, dst)| TileCopy {
        src: program.view(src),
        dst: program.view(dst),
    });
    let copies = copies.collect();
    Step::Exchange(Exchange {
        source: source(program),
        ipu: IpuId(0),
        copies,
    })
}

/// A host that hands out what is queued and keeps what it gets, for every replica and stream alike.
#[derive(Default)]
pub(super) struct QueueHost {
    pub(super) to_device: VecDeque<Vec<f64>>,
    pub(super) from_device: Vec<Vec<f64>>,
}

impl Host for QueueHost {
    fn read(&mut self, _: ReplicaId, _: StreamId) -> Result<Vec<f64>, StreamError> {
        self.to_device.pop_front().ok_or(StreamError::Exhausted)
    }

    fn write(&mut self, _: ReplicaId, _: StreamId, values: Vec<f64>) -> Result<(), StreamError> {
        self.from_device.push(values);
        Ok(())
    }
}

/// Runs a program on `inputs`, the same for all replicas, and reads `output` of replica 0.
pub(super) fn outcome(
    program: &Program,
    inputs: &[(VarId, &[f64])],
    output: VarId,
) -> Result<Vec<f64>, ExecuteError> {
    let mut memory = Memory::new(program)?;
    for replica in (0..program.n_replicas).map(ReplicaId) {
        for (var, values) in inputs {
            memory.write(replica, *var, values)?;
        }
    }
    run(
        &mut memory,
        &mut QueueHost::default(),
        &mut RemoteMemory::new(program),
    )?;
    memory.read(ReplicaId(0), output)
}

/// Runs a program on `inputs` and compares `output` of replica 0.
pub(super) fn check(
    program: &Program,
    inputs: &[(VarId, &[f64])],
    output: VarId,
    expected: &[f64],
) {
    let got = outcome(program, inputs, output).unwrap();
    assert_eq!(got, expected, "`{}`", program.vars[output].name);
}

/// 0, 1, 2, ... of `n` values.
pub(super) fn count(n: u32) -> Vec<f64> {
    (0..n).map(f64::from).collect()
}
