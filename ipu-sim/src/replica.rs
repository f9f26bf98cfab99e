//! Where do the replicas of a program lie on a machine?
//!
//! Each on consecutive IPUs, one after the other, from the first IPU of the machine.
//!
//! Left out: other arrangements, such as replicas whose IPUs interleave.

use crate::ids::{Id, IpuId, ReplicaId};
use crate::topology::Topology;

/// Why replicas have no place on a machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplicaError {
    /// More replicas than the machine has room for.
    #[error(
        "{n_replicas} replicas of {ipus_per_replica} IPUs don't fit, expected at most {n_ipus} \
         IPUs, got {}",
        u64::from(*n_replicas) * u64::from(*ipus_per_replica)
    )]
    DontFit {
        /// Replicas wanted.
        n_replicas: u32,
        /// IPUs of each.
        ipus_per_replica: u32,
        /// IPUs of the machine.
        n_ipus: u32,
    },
    /// A replica, or a machine, of nothing.
    #[error("expected at least one replica of at least one IPU")]
    None,
}

/// Where the replicas of a program lie: each on consecutive IPUs, one after the other.
///
/// A replica's own IPUs are numbered from 0, as in a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaPlacement {
    /// Replicas.
    pub n_replicas: u32,
    /// IPUs of each.
    pub ipus_per_replica: u32,
}

impl ReplicaPlacement {
    /// Lays replicas out on a machine.
    ///
    /// # Errors
    ///
    /// [`ReplicaError::DontFit`] if the machine has fewer IPUs, [`ReplicaError::None`] if either
    /// number is 0.
    pub fn new(
        topology: &Topology,
        n_replicas: u32,
        ipus_per_replica: u32,
    ) -> Result<Self, ReplicaError> {
        if n_replicas == 0 || ipus_per_replica == 0 {
            return Err(ReplicaError::None);
        }
        let needed = u64::from(n_replicas) * u64::from(ipus_per_replica);
        if needed > u64::from(topology.n_ipus) {
            return Err(ReplicaError::DontFit {
                n_replicas,
                ipus_per_replica,
                n_ipus: topology.n_ipus,
            });
        }
        Ok(Self {
            n_replicas,
            ipus_per_replica,
        })
    }

    /// The IPU of the machine that is `ipu` of `replica`.
    #[must_use]
    pub fn ipu(&self, replica: ReplicaId, ipu: IpuId) -> IpuId {
        assert!(
            replica.0 < self.n_replicas && ipu.0 < self.ipus_per_replica,
            "{replica} has no {ipu}"
        );
        IpuId(replica.0 * self.ipus_per_replica + ipu.0)
    }

    /// All IPUs of a replica, by their numbers in the machine.
    pub fn ipus(&self, replica: ReplicaId) -> impl Iterator<Item = IpuId> + use<> {
        let (placement, n) = (*self, self.ipus_per_replica);
        (0..n).map(move |ipu| placement.ipu(replica, IpuId(ipu)))
    }

    /// The replica that runs on an IPU of the machine, if one does.
    #[must_use]
    pub fn replica(&self, ipu: IpuId) -> Option<ReplicaId> {
        let replica = ipu.0 / self.ipus_per_replica;
        (replica < self.n_replicas).then_some(ReplicaId(replica))
    }

    /// All replicas.
    pub fn replicas(&self) -> impl Iterator<Item = ReplicaId> + use<> {
        (0..self.n_replicas as usize).map(ReplicaId::from_index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::fixtures::machine;

    #[test]
    fn replicas_lie_on_consecutive_ipus() {
        let topology = Topology::new(&machine("mk2-pod16"));
        let placement = ReplicaPlacement::new(&topology, 3, 4).unwrap();
        assert_eq!(placement.ipu(ReplicaId(2), IpuId(1)), IpuId(9));
        assert_eq!(placement.replica(IpuId(9)), Some(ReplicaId(2)));
        assert_eq!(placement.replica(IpuId(12)), None);
        assert_eq!(placement.replicas().count(), 3);

        let error = ReplicaPlacement::new(&topology, 5, 4).unwrap_err();
        let message = "5 replicas of 4 IPUs don't fit, expected at most 16 IPUs, got 20";
        assert_eq!(error.to_string(), message);
        assert_eq!(
            ReplicaPlacement::new(&topology, 0, 4),
            Err(ReplicaError::None)
        );
    }
}
