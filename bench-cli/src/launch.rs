//! A run that a launcher started in several processes, from the variables that it leaves in the
//! environment.
//!
//! `poprun` gives each process a share of the replicas and says so in variables of PopDist, which
//! the published application reads. One process simulates the whole system: the first, as the
//! others would only find the same. MPI's own variables say how many processes there are, and
//! nothing of replicas: they are checked against PopDist's.

use std::ffi::OsString;

type Result<T> = std::result::Result<T, LaunchError>;

/// Replicas of all processes.
const TOTAL_REPLICAS: &str = "POPDIST_NUM_TOTAL_REPLICAS";
/// Replicas of this process.
const LOCAL_REPLICAS: &str = "POPDIST_NUM_LOCAL_REPLICAS";
/// Replicas of the processes before this one.
const REPLICA_OFFSET: &str = "POPDIST_REPLICA_INDEX_OFFSET";
/// Open MPI's count of processes and number of this one
/// (docs.open-mpi.org, "Environment variables set for MPI applications").
const MPI: [&str; 2] = ["OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"];

/// One process among those of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Processes of the run, at least one.
    pub processes: u32,
    /// Number of this process, from 0.
    pub rank: u32,
    /// Replicas of each process, at least one.
    pub local_replicas: u32,
}

/// Contradiction in what the environment says of a launch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    /// Some of PopDist's variables without the others.
    #[error("the environment has {given}, but no {missing}: PopDist sets both, or neither")]
    Missing {
        /// A variable that is there.
        given: &'static str,
        /// One that isn't.
        missing: &'static str,
    },
    /// A variable that is no count.
    #[error("{variable}: expected a whole number, {least} or more, got '{found}'")]
    NotACount {
        /// The variable.
        variable: &'static str,
        /// The least number.
        least: u32,
        /// Its value.
        found: String,
    },
    /// Replicas that no equal processes have.
    #[error(
        "{TOTAL_REPLICAS} is {total} and {LOCAL_REPLICAS} {local}: every process needs as many replicas"
    )]
    Unequal {
        /// Replicas of all processes.
        total: u32,
        /// Replicas of this one.
        local: u32,
    },
    /// A process that begins within another one's replicas, or behind them all.
    #[error(
        "{REPLICA_OFFSET} is {offset}: with {local} replicas a process it must be a multiple of \
         that, below {total}"
    )]
    Offset {
        /// Replicas before this process.
        offset: u32,
        /// Replicas of this process.
        local: u32,
        /// Replicas of all processes.
        total: u32,
    },
    /// PopDist and MPI that count processes differently.
    #[error("{variable} is {found}, but PopDist's variables say {expected}")]
    Mpi {
        /// MPI's variable.
        variable: &'static str,
        /// Its value.
        found: u32,
        /// What PopDist's variables say.
        expected: u32,
    },
}

impl Launch {
    /// The launch that the environment describes, if it does; `variable` looks a variable up.
    ///
    /// # Errors
    ///
    /// [`LaunchError`] for variables that contradict each other.
    pub fn read(variable: impl Fn(&str) -> Option<OsString>) -> Result<Option<Self>> {
        let count = |name: &'static str, least: u32| -> Result<Option<u32>> {
            let Some(found) = variable(name) else {
                return Ok(None);
            };
            let found = found.to_string_lossy();
            match found.trim().parse() {
                Ok(number) if number >= least => Ok(Some(number)),
                _ => Err(LaunchError::NotACount {
                    variable: name,
                    least,
                    found: found.into_owned(),
                }),
            }
        };
        let names = [TOTAL_REPLICAS, LOCAL_REPLICAS, REPLICA_OFFSET];
        let given = names.iter().find(|name| variable(name).is_some());
        let missing = names.iter().find(|name| variable(name).is_none());
        match (given, missing) {
            (None, _) => return Ok(None),
            (Some(given), Some(missing)) => {
                return Err(LaunchError::Missing { given, missing });
            }
            (Some(_), None) => {}
        }
        let need = |name, least| count(name, least).map(|found| found.expect("it is there"));
        let (total, local) = (need(TOTAL_REPLICAS, 1)?, need(LOCAL_REPLICAS, 1)?);
        let offset = need(REPLICA_OFFSET, 0)?;
        if !total.is_multiple_of(local) {
            return Err(LaunchError::Unequal { total, local });
        }
        if offset >= total || !offset.is_multiple_of(local) {
            return Err(LaunchError::Offset {
                offset,
                local,
                total,
            });
        }
        let launch = Self {
            processes: total / local,
            rank: offset / local,
            local_replicas: local,
        };
        for (variable, expected) in MPI.into_iter().zip([launch.processes, launch.rank]) {
            let found = count(variable, 0)?;
            if let Some(found) = found.filter(|found| *found != expected) {
                return Err(LaunchError::Mpi {
                    variable,
                    found,
                    expected,
                });
            }
        }
        Ok(Some(launch))
    }

    /// Replicas of all processes.
    #[must_use]
    pub fn total_replicas(&self) -> u32 {
        self.processes * self.local_replicas
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(
        environment: &[(&str, &str)],
        expected: std::result::Result<Option<(u32, u32, u32)>, &str>,
    ) {
        let variable = |name: &str| {
            let found = environment.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| OsString::from(value))
        };
        let found = Launch::read(variable).map_err(|error| error.to_string());
        let parts = |launch: Launch| (launch.processes, launch.rank, launch.local_replicas);
        let found = found.map(|launch| launch.map(parts));
        assert_eq!(found, expected.map_err(String::from), "{environment:?}");
    }

    #[test]
    fn a_launch_is_read_or_refused() {
        check(&[], Ok(None));
        // MPI alone says nothing of replicas, to the original either.
        check(&[("OMPI_COMM_WORLD_SIZE", "2")], Ok(None));
        let pod128 = [
            (TOTAL_REPLICAS, "32"),
            (LOCAL_REPLICAS, "16"),
            (REPLICA_OFFSET, "16"),
        ];
        check(&pod128, Ok(Some((2, 1, 16))));
        let mpi = |size, rank| [&pod128[..], &[(MPI[0], size), (MPI[1], rank)]].concat();
        check(&mpi("2", "1"), Ok(Some((2, 1, 16))));
        check(
            &mpi("4", "1"),
            Err("OMPI_COMM_WORLD_SIZE is 4, but PopDist's variables say 2"),
        );
        check(
            &mpi("2", "0"),
            Err("OMPI_COMM_WORLD_RANK is 0, but PopDist's variables say 1"),
        );
        check(
            &pod128[..2],
            Err("the environment has POPDIST_NUM_TOTAL_REPLICAS, but no \
                 POPDIST_REPLICA_INDEX_OFFSET: PopDist sets both, or neither"),
        );
        let with = |total, local, offset| {
            [
                (TOTAL_REPLICAS, total),
                (LOCAL_REPLICAS, local),
                (REPLICA_OFFSET, offset),
            ]
        };
        check(
            &with("32", "12", "0"),
            Err(
                "POPDIST_NUM_TOTAL_REPLICAS is 32 and POPDIST_NUM_LOCAL_REPLICAS 12: every \
                 process needs as many replicas",
            ),
        );
        for offset in ["8", "32"] {
            let error = format!(
                "POPDIST_REPLICA_INDEX_OFFSET is {offset}: with 16 replicas a process it must be \
                 a multiple of that, below 32"
            );
            check(&with("32", "16", offset), Err(&error));
        }
        check(
            &with("32", "0", "0"),
            Err("POPDIST_NUM_LOCAL_REPLICAS: expected a whole number, 1 or more, got '0'"),
        );
        check(
            &with("many", "1", "0"),
            Err("POPDIST_NUM_TOTAL_REPLICAS: expected a whole number, 1 or more, got 'many'"),
        );
    }
}
