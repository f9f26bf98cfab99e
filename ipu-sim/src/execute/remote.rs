//! Streaming memory: buffers beside the IPUs that hold what tiles have no room for.

use super::error::ExecuteError;
use super::memory::Memory;
use crate::ids::{IdVec, ReplicaId};
use crate::program::{Program, RemoteBufferId, VarId};

/// The buffers in streaming memory of all replicas.
///
/// A buffer holds a variable in its storage order, box by box, one copy, padding
/// included; see [`Memory::to_storage`].
#[derive(Clone, Debug, PartialEq)]
pub struct RemoteMemory {
    replicas: IdVec<ReplicaId, IdVec<RemoteBufferId, Option<Vec<f64>>>>,
}

impl RemoteMemory {
    /// The buffers of `program`, with nothing stored.
    #[must_use]
    pub fn new(program: &Program) -> Self {
        let buffers: IdVec<_, _> = program.remote_buffers.ids().map(|_| None).collect();
        Self {
            replicas: (0..program.n_replicas).map(|_| buffers.clone()).collect(),
        }
    }

    /// Fills a buffer from the host, in storage order.
    pub fn write(&mut self, replica: ReplicaId, buffer: RemoteBufferId, stored: Vec<f64>) {
        self.replicas[replica][buffer] = Some(stored);
    }

    /// Values of a buffer, in storage order, if anything was stored.
    #[must_use]
    pub fn read(&self, replica: ReplicaId, buffer: RemoteBufferId) -> Option<&[f64]> {
        self.replicas[replica][buffer].as_deref()
    }
}

/// A buffer and the variable that it is moved to or from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    pub buffer: RemoteBufferId,
    pub var: VarId,
}

/// Loads a variable of one replica from its buffer.
pub(super) fn load(
    memory: &mut Memory<'_>,
    remote: &RemoteMemory,
    replica: ReplicaId,
    ends: Ends,
) -> Result<(), ExecuteError> {
    let buffer = || {
        memory.atlas.program.remote_buffers[ends.buffer]
            .name
            .clone()
    };
    let stored = remote
        .read(replica, ends.buffer)
        .ok_or_else(|| ExecuteError::RemoteEmpty {
            buffer: buffer(),
            replica,
        })?;
    let boxes = &memory.atlas.placement(ends.var).boxes;
    let expected = boxes.iter().map(|table| table.stored).sum();
    if stored.len() != expected {
        return Err(ExecuteError::RemoteLength {
            buffer: buffer(),
            variable: memory.atlas.name(ends.var),
            expected,
            got: stored.len(),
        });
    }
    memory.write_storage(replica, ends.var, stored);
    Ok(())
}

/// Stores a variable of one replica to its buffer.
pub(super) fn store(
    memory: &Memory<'_>,
    remote: &mut RemoteMemory,
    replica: ReplicaId,
    ends: Ends,
) -> Result<(), ExecuteError> {
    let buffer = &memory.atlas.program.remote_buffers[ends.buffer];
    let needed = memory.atlas.program.bytes_of(ends.var);
    if buffer.bytes < needed {
        return Err(ExecuteError::RemoteTooSmall {
            buffer: buffer.name.clone(),
            variable: memory.atlas.name(ends.var),
            needed,
            available: buffer.bytes,
        });
    }
    let stored = memory.read_storage(replica, ends.var)?;
    remote.write(replica, ends.buffer, stored);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::execute::fixtures::{QueueHost, count, source, var, whole};
    use crate::execute::run;
    use crate::layout::Layout;
    use crate::layout::fixtures::cut;
    use crate::numerics::DType;
    use crate::program::{RemoteBuffer, Step, Stream, Transfer};
    use crate::units::Bytes;

    /// Host to `x`, to a buffer, to `y`, and back to the host; with as much of it as is asked for.
    fn program(keep: std::ops::Range<usize>, buffer_bytes: u64, y_columns: u32) -> Program {
        let mut program = Program::new(1, 2);
        let layout = |columns| {
            Layout::row_major(vec![cut(3, 2, 2), whole(columns)])
                .with_order(&[(1, 4), (0, 1), (1, 1)])
                .with_copies(vec![0, 1])
        };
        let x = var(&mut program, "x", DType::F16, layout(3));
        let y = var(&mut program, "y", DType::F16, layout(y_columns));
        let stream = program.streams.push(Stream {
            name: "stream".to_owned(),
            prefetch: false,
            buffering_depth: 1,
        });
        let buffer = program.remote_buffers.push(RemoteBuffer {
            name: "buffer".to_owned(),
            bytes: Bytes(buffer_bytes),
        });
        let transfers = [
            Transfer::HostRead { stream, var: x },
            Transfer::RemoteStore { buffer, var: x },
            Transfer::RemoteLoad { buffer, var: y },
            Transfer::HostWrite { stream, var: y },
        ];
        let transfers = transfers[keep].to_vec();
        let source = source(&mut program);
        program.steps = vec![Step::Transfers { source, transfers }];
        program
    }

    fn outcome(
        program: &Program,
        inputs: &[Vec<f64>],
    ) -> Result<(Vec<Vec<f64>>, RemoteMemory), ExecuteError> {
        let mut host = QueueHost {
            to_device: inputs.iter().cloned().collect(),
            ..QueueHost::default()
        };
        let mut remote = RemoteMemory::new(program);
        run(&mut Memory::new(program)?, &mut host, &mut remote)?;
        Ok((host.from_device, remote))
    }

    #[test]
    fn values_go_through_streaming_memory_and_back_for_every_replica() {
        let inputs = [count(9), vec![5.0; 9]];
        let program = program(0..4, 24, 3);
        let (outputs, remote) = outcome(&program, &inputs).unwrap();
        assert_eq!(outputs, inputs);
        let stored = remote.read(ReplicaId(0), RemoteBufferId(0)).unwrap();
        let boxes = [0.0, 1.0, 2.0, 0.0, 3.0, 4.0, 5.0, 0.0, 6.0, 7.0, 8.0, 0.0];
        assert_eq!(stored, boxes);
    }

    #[test]
    fn transfers_that_cant_be_are_refused() {
        let check = |program: &Program, expected: &str| {
            let error = outcome(program, &[count(9)]).unwrap_err();
            assert_eq!(error.to_string(), expected);
        };
        check(
            &program(0..1, 24, 3),
            "stream `stream` of replica 1: no more data",
        );
        check(
            &program(2..3, 24, 3),
            "buffer `buffer` of replica 0 is loaded before it is stored",
        );
        check(
            &program(1..2, 24, 3),
            "`x` on tile 0 is read before it is written",
        );
        let mut small = program(0..2, 10, 3);
        small.n_replicas = 1;
        check(
            &small,
            "buffer `buffer`: expected room for 18 B of `x`, got 10 B",
        );
        let mut other = program(0..3, 24, 5);
        other.n_replicas = 1;
        check(
            &other,
            "buffer `buffer`: expected 24 elements for `y`, got 12",
        );
    }
}
