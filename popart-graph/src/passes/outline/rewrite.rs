//! Copies around chosen pieces of a graph.

use super::*;
use crate::infer::InferError;

/// Gives every reader the copy that is its own.
pub(super) fn rewrite(
    graph: Graph,
    seen: &Seen,
    order: &[OpId],
    calls: &Calls,
) -> Result<Graph, InferError> {
    let mut ctx = Ctx {
        seen,
        calls,
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
        let root = seen.root[tensor];
        for (view, _) in seen.views(tensor) {
            let output = ctx.graph.ops[view].outputs[0];
            ctx.used.insert(view);
            ctx.seen_as.insert((root, output), output);
        }
    }
    let readers = order
        .iter()
        .filter(|&&id| !seen.is_view(&ctx.graph.ops[id]));
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
    /// Copies of results that leave their piece.
    left: BTreeMap<TensorId, TensorId>,
    /// Copies of tensors that enter a piece.
    entered: BTreeMap<(u32, TensorId), TensorId>,
    /// What stands for a view of a root, seen from a base.
    seen_as: BTreeMap<(TensorId, TensorId), TensorId>,
    /// Views of the graph as it was that have found their base.
    used: BTreeSet<OpId>,
}

impl Ctx<'_> {
    /// What `reader` sees of a tensor that an operation makes: itself or a copy.
    fn base(&mut self, root: TensorId, reader: OpId) -> Result<TensorId, InferError> {
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
    fn leave(&mut self, root: TensorId) -> Result<TensorId, InferError> {
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
    fn view_of(
        &mut self,
        base: TensorId,
        input: TensorId,
        reader: OpId,
    ) -> Result<TensorId, InferError> {
        let mut missing = Vec::new();
        let mut at = input;
        let mut now = loop {
            let Some((view, of)) = self.seen.view[at] else {
                break base;
            };
            if let Some(&known) = self.seen_as.get(&(base, at)) {
                break known;
            }
            missing.push((view, at));
            at = of;
        };
        for (view, tensor) in missing.into_iter().rev() {
            now = self.make_view(now, base, view, reader)?;
            self.seen_as.insert((base, tensor), now);
        }
        Ok(now)
    }

    fn make_view(
        &mut self,
        at: TensorId,
        base: TensorId,
        view: OpId,
        reader: OpId,
    ) -> Result<TensorId, InferError> {
        let own = &self.graph.ops[view];
        let beside = match base == self.seen.root[own.outputs[0]] {
            true => own.scope(),
            false => self.graph.ops[reader].scope(),
        };
        let scope = Scope {
            name: own.name.clone(),
            part: own.part,
            purpose: own.purpose,
            ..beside
        };
        if self.used.insert(view) {
            let op = &mut self.graph.ops[view];
            op.inputs[0] = at;
            (op.ipu, op.stage) = (scope.ipu, scope.stage);
            (op.phase, op.recompute) = (scope.phase, scope.recompute);
            return Ok(op.outputs[0]);
        }
        let kind = own.kind.clone();
        self.graph.add(kind, &[at], &scope)
    }
}
