//! Which plans are already known?
//!
//! A BERT step has thousands of products but only dozens of distinct ones, and planning is
//! a pure function: so a cache by shape and options, filled in parallel and shared by all
//! threads that compile for the machine. What it says doesn't depend on who filled it, in which
//! order and on how many threads: planning holds no lock, and two that plan the same product at
//! the same time find the same plan.
//!
//! Products of a trained layer are planned together, whichever of its passes is asked for
//! first: PopLibs plans the forward pass for that of a gradient, and derives the gradient's
//! plan from it where all passes share one.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipu_sim::numerics::DType;
use ipu_sim::spec::TileSpec;
use ipu_sim::threads;
use ipu_sim::vertex::WeightLoad;
use parking_lot::RwLock;

use super::joint::better_jointly;
use super::{JointPass, MatMulShape, Pass, Plan, PlanError, PlanOptions, plan};

/// A product to plan.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlanRequest {
    /// Sizes of the product.
    pub shape: MatMulShape,
    /// How to plan it.
    pub options: PlanOptions,
}

/// [`PlanRequest`] with the proportion as bits, so that it has a total order.
type Key = (MatMulShape, Pass, [DType; 3], u64, WeightLoad);

impl PlanRequest {
    /// All products of the layer that this one is a pass of, the forward one first; of a
    /// product that is no such pass, only itself.
    fn layer(&self) -> Vec<PlanRequest> {
        let Some(pass) = JointPass::of(self.options.pass) else {
            return vec![*self];
        };
        let forward = pass.forward_of(&self.shape);
        let request = |pass: JointPass| PlanRequest {
            shape: pass.product(&forward),
            options: PlanOptions {
                pass: pass.pass(),
                ..self.options
            },
        };
        JointPass::ALL.map(request).to_vec()
    }

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

/// Plans of matrix products for one kind of tile, shared by all threads.
#[derive(Debug)]
pub struct PlanCache {
    spec: TileSpec,
    plans: RwLock<BTreeMap<Key, Arc<Plan>>>,
}

impl PlanCache {
    /// An empty cache for tiles of one kind.
    #[must_use]
    pub fn new(spec: TileSpec) -> Self {
        PlanCache {
            spec,
            plans: RwLock::default(),
        }
    }

    /// The tiles that products are planned for.
    #[must_use]
    pub fn spec(&self) -> &TileSpec {
        &self.spec
    }

    /// Plans all of `requests` that aren't known yet, with the other passes of their layers,
    /// on all threads of the current pool.
    ///
    /// # Errors
    ///
    /// As [`plan`]: that of the first request in order of shape and options that has none.
    /// The plans of the others are kept.
    pub fn fill(&self, requests: &[PlanRequest]) -> Result<(), PlanError> {
        let missing = self.missing(requests);
        if missing.is_empty() {
            return Ok(());
        }
        let layers: BTreeMap<Key, Vec<PlanRequest>> = missing
            .values()
            .map(|request| request.layer())
            .map(|layer| (layer[0].key(), layer))
            .collect();
        let products: BTreeMap<Key, &PlanRequest> = layers
            .values()
            .flatten()
            .map(|request| (request.key(), request))
            .collect();
        let products: Vec<(Key, &PlanRequest)> = products.into_iter().collect();
        let separate = threads::map(&products, |(key, request)| {
            let plan = plan(&request.shape, &request.options, &self.spec);
            (*key, plan)
        });
        let separate: BTreeMap<Key, Result<Plan, PlanError>> = separate.into_iter().collect();
        // Which products there are without a plan is the same for all passes of a layer.
        let refused = missing.keys().find_map(|key| separate[key].clone().err());
        let layers: Vec<Vec<PlanRequest>> = layers.into_values().collect();
        let chosen = threads::map(&layers, |layer| self.choose(layer, &separate));
        let mut plans = self.plans.write();
        for (key, plan) in chosen.into_iter().flatten() {
            plans.entry(key).or_insert_with(|| Arc::new(plan));
        }
        refused.map_or(Ok(()), Err)
    }

    /// Those of `requests` that aren't known yet, each once.
    fn missing<'a>(&self, requests: &'a [PlanRequest]) -> BTreeMap<Key, &'a PlanRequest> {
        let plans = self.plans.read();
        let keyed = requests.iter().map(|request| (request.key(), request));
        keyed.filter(|(key, _)| !plans.contains_key(key)).collect()
    }

    /// The plans of a layer's passes: joint ones if these are better.
    fn choose(
        &self,
        layer: &[PlanRequest],
        separate: &BTreeMap<Key, Result<Plan, PlanError>>,
    ) -> Vec<(Key, Plan)> {
        let plans: Vec<&Plan> = layer
            .iter()
            .filter_map(|request| separate[&request.key()].as_ref().ok())
            .collect();
        let joint = match (layer, plans.as_slice()) {
            ([forward, ..], &[fwd, bwd, wu]) => {
                let PlanRequest { shape, options } = forward;
                better_jointly(shape, options, &self.spec, [fwd, bwd, wu])
            }
            _ => None,
        };
        let plans = match joint {
            Some(joint) => joint.to_vec(),
            None => plans.into_iter().cloned().collect(),
        };
        layer.iter().map(PlanRequest::key).zip(plans).collect()
    }

    /// The plan of `request`, if it is known.
    #[must_use]
    pub fn get(&self, request: &PlanRequest) -> Option<Arc<Plan>> {
        self.plans.read().get(&request.key()).cloned()
    }

    /// Distinct products planned so far, every pass of every layer among them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.plans.read().len()
    }

    /// Whether nothing has been planned yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.plans.read().is_empty()
    }
}
