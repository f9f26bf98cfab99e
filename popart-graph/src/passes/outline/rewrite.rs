//! Copies around chosen pieces of a graph.

use super::*;

/// Gives every reader the copy that is its own.
pub(super) fn rewrite(graph: Graph, seen: &Seen, order: &[OpId], calls: &Calls) -> Result<Graph> {
    let mut ctx = Ctx {
        seen,
        calls,
        views: graph
            .tensors
            .ids()
            .map(|tensor| seen.views(&graph, tensor))
            .collect(),
        left: BTreeMap::new(),
        entered: BTreeMap::new(),
        seen_as: BTreeMap::new(),
        used: BTreeSet::new(),
        graph,
    };
    // What stays as it is keeps its views, before any copy lays claim to them.
    let updated = ctx.graph.updates.iter().map(|&(_, value)| value);
    let fixed: Vec<TensorId> = ctx.graph.outputs.iter().copied().chain(updated).collect();
    for tensor in fixed {
        for view in ctx.views[tensor].clone() {
            let root = seen.root[tensor];
            ctx.used.insert(view);
            ctx.seen_as
                .insert((root, view), ctx.graph.ops[view].outputs[0]);
        }
    }
    let readers = order
        .iter()
        .filter(|&&id| !is_view(&ctx.graph.ops[id].kind));
    for reader in readers.copied().collect::<Vec<_>>() {
        for operand in 0..ctx.graph.ops[reader].inputs.len() {
            let input = ctx.graph.ops[reader].inputs[operand];
            let base = ctx.base(seen.root[input], reader)?;
            ctx.graph.ops[reader].inputs[operand] = ctx.view_of(base, input, reader)?;
        }
    }
    Ok(ctx.graph)
}

struct Ctx<'a> {
    graph: Graph,
    seen: &'a Seen,
    calls: &'a Calls,
    /// The views from a tensor's root to it, before anything changed.
    views: IdVec<TensorId, Vec<OpId>>,
    /// Copies of results that leave their piece.
    left: BTreeMap<TensorId, TensorId>,
    /// Copies of tensors that enter a piece.
    entered: BTreeMap<(u32, TensorId), TensorId>,
    /// Views of a base that have been made.
    seen_as: BTreeMap<(TensorId, OpId), TensorId>,
    /// Views of the graph as it was that have found their base.
    used: BTreeSet<OpId>,
}

impl Ctx<'_> {
    /// What `reader` sees of a tensor that an operation makes: itself or a copy.
    fn base(&mut self, root: TensorId, reader: OpId) -> Result<TensorId> {
        let from = self.seen.producers[root].and_then(|op| self.calls[op]);
        let into = self.calls[reader];
        let sums_here = from.is_some() && adds_up(&self.graph, reader);
        let is_constant = matches!(self.graph.tensors[root].kind, TensorKind::Constant(_));
        if from == into || sums_here || is_constant {
            return Ok(root);
        }
        let outer = match from {
            Some(_) => self.leave(root)?,
            None => root,
        };
        let Some(call) = into else {
            return Ok(outer);
        };
        if let Some(&entered) = self.entered.get(&(call, outer)) {
            return Ok(entered);
        }
        let scope = self.graph.ops[reader].scope();
        let entered = self.graph.add(OpKind::CallInput, &[outer], &scope)?;
        self.entered.insert((call, outer), entered);
        Ok(entered)
    }

    /// The copy of a result outside its piece.
    fn leave(&mut self, root: TensorId) -> Result<TensorId> {
        if let Some(&left) = self.left.get(&root) {
            return Ok(left);
        }
        let producer = self.seen.producers[root].expect("a piece made it");
        let scope = self.graph.ops[producer].scope();
        let left = self.graph.add(OpKind::CallOutput, &[root], &scope)?;
        self.left.insert(root, left);
        Ok(left)
    }

    /// `base` seen as `input` saw its root. The first that needs a view takes the one that is
    /// there; the others get theirs beside their reader.
    fn view_of(&mut self, base: TensorId, input: TensorId, reader: OpId) -> Result<TensorId> {
        let mut at = base;
        for view in self.views[input].clone() {
            at = match self.seen_as.get(&(base, view)) {
                Some(&known) => known,
                None => {
                    let made = self.make_view(at, base, view, reader)?;
                    self.seen_as.insert((base, view), made);
                    made
                }
            };
        }
        Ok(at)
    }

    fn make_view(
        &mut self,
        at: TensorId,
        base: TensorId,
        view: OpId,
        reader: OpId,
    ) -> Result<TensorId> {
        let own = &self.graph.ops[view];
        let Scope {
            ipu,
            stage,
            phase,
            recompute,
            ..
        } = match base == self.seen.root[own.outputs[0]] {
            true => own.scope(),
            false => self.graph.ops[reader].scope(),
        };
        let name = own.name.clone();
        let scope = Scope {
            name,
            ipu,
            stage,
            phase,
            recompute,
        };
        if self.used.insert(view) {
            let op = &mut self.graph.ops[view];
            op.inputs[0] = at;
            (op.ipu, op.stage, op.phase, op.recompute) = (ipu, stage, phase, recompute);
            return Ok(op.outputs[0]);
        }
        let kind = own.kind.clone();
        self.graph.add(kind, &[at], &scope)
    }
}
