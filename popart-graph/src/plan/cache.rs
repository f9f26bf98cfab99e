//! Which plans are already known?
//!
//! A BERT step has thousands of products but only dozens of distinct ones, and planning is
//! a pure function: so a cache by shape and options, filled in parallel. Its content
//! doesn't depend on the order or the number of threads that filled it.

use std::collections::BTreeMap;

use ipu_sim::numerics::DType;
use ipu_sim::spec::TileSpec;
use ipu_sim::vertex::WeightLoad;
use rayon::prelude::*;

use super::{MatMulShape, Pass, Plan, PlanError, PlanOptions, plan};

/// A product to plan.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlanRequest {
    /// Its sizes.
    pub shape: MatMulShape,
    /// How to plan it.
    pub options: PlanOptions,
}

/// [`PlanRequest`] with the proportion as bits, so that it has a total order.
type Key = (MatMulShape, Pass, [DType; 3], u64, WeightLoad);

impl PlanRequest {
    fn key(&self) -> Key {
        let PlanOptions {
            pass,
            operand,
            partials,
            output,
            available_memory_proportion,
            weight_load,
        } = self.options;
        let types = [operand, partials, output];
        (
            self.shape,
            pass,
            types,
            available_memory_proportion.to_bits(),
            weight_load,
        )
    }
}

/// The plans of one machine.
#[derive(Clone, Debug)]
pub struct PlanCache {
    spec: TileSpec,
    plans: BTreeMap<Key, Plan>,
}

impl PlanCache {
    /// An empty cache for a machine.
    #[must_use]
    pub fn new(spec: TileSpec) -> Self {
        PlanCache {
            spec,
            plans: BTreeMap::new(),
        }
    }

    /// Plans all of `requests` that aren't known yet, on all threads of the current pool.
    ///
    /// # Errors
    ///
    /// As [`plan`]: that of the first request in order of shape and options that has none.
    /// The plans of the others are kept.
    pub fn fill(&mut self, requests: &[PlanRequest]) -> Result<(), PlanError> {
        let missing: BTreeMap<Key, &PlanRequest> = requests
            .iter()
            .map(|request| (request.key(), request))
            .filter(|(key, _)| !self.plans.contains_key(key))
            .collect();
        let planned: Vec<(Key, Result<Plan, PlanError>)> = missing
            .into_par_iter()
            .map(|(key, request)| (key, plan(&request.shape, &request.options, &self.spec)))
            .collect();
        let mut first_error = Ok(());
        for (key, result) in planned {
            match result {
                Ok(plan) => {
                    self.plans.insert(key, plan);
                }
                Err(error) => first_error = first_error.and(Err(error)),
            }
        }
        first_error
    }

    /// The plan of `request`, if it is known.
    #[must_use]
    pub fn get(&self, request: &PlanRequest) -> Option<&Plan> {
        self.plans.get(&request.key())
    }

    /// The plan of `request`, made now if it isn't known.
    ///
    /// # Errors
    ///
    /// As [`plan`].
    pub fn get_or_plan(&mut self, request: &PlanRequest) -> Result<&Plan, PlanError> {
        use std::collections::btree_map::Entry;
        match self.plans.entry(request.key()) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(unknown) => {
                let plan = plan(&request.shape, &request.options, &self.spec)?;
                Ok(unknown.insert(plan))
            }
        }
    }

    /// Distinct products planned so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.plans.len()
    }

    /// Whether nothing has been planned yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.plans.is_empty()
    }
}
