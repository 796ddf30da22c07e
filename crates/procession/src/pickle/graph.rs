//! What the instructions of a pickle build: values that refer to each other, by number.
//!
//! A container may be referred to before it is filled, and several times. So the instructions make a
//! graph, and [`Graph::into_value`] makes a tree of it when nothing changes any more.

use std::mem;

use crate::pickle::error::Error;
use crate::pickle::plain;
use crate::pickle::value::{Construct, Object, Value};
use crate::pickle::{COPIED_FOR_EACH_BYTE, MAX_COPIED, MAX_DEPTH};

/// A node by its number.
pub(super) type Id = u32;

/// A value whose parts are nodes.
#[derive(Debug)]
pub(super) enum Node {
    /// A value without parts.
    Leaf(Value),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    /// Keys and values in turn.
    Dict(Vec<Id>),
    Set(Vec<Id>),
    FrozenSet(Vec<Id>),
    Object(Box<Parts>),
}

/// The parts of an [`Object`].
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) callable: Id,
    pub(super) is_call: bool,
    /// A tuple.
    pub(super) arguments: Id,
    /// A dictionary.
    pub(super) keywords: Option<Id>,
    pub(super) items: Vec<Id>,
    /// Keys and values in turn.
    pub(super) pairs: Vec<Id>,
    pub(super) state: Option<Id>,
}

#[derive(Debug)]
struct Slot {
    state: State,
    /// How often it is referred to, beyond the one time that everything is.
    more_uses: u32,
}

#[derive(Debug)]
enum State {
    Raw(Node),
    /// Its parts are being resolved, or it has been given away.
    Gone,
    /// A value that is needed again.
    Resolved(Tree),
}

/// A value with its measures.
#[derive(Debug, Clone)]
struct Tree {
    value: Value,
    /// Bytes of memory, about.
    weight: usize,
    /// Levels of nesting, as written in protocol 4.
    height: usize,
}

/// All nodes of a pickle.
#[derive(Debug)]
pub(super) struct Graph {
    slots: Vec<Slot>,
    /// Bytes that may still go into copies.
    copies_left: usize,
}

impl Graph {
    /// A graph for a pickle of so many bytes.
    pub(super) fn new(len: usize) -> Self {
        let copies_left = len.saturating_mul(COPIED_FOR_EACH_BYTE).saturating_add(MAX_COPIED);
        Self { slots: Vec::new(), copies_left }
    }

    /// Adds a node, unless there are too many to count.
    pub(super) fn add(&mut self, node: Node) -> Option<Id> {
        let id = Id::try_from(self.slots.len()).ok()?;
        self.slots.push(Slot { state: State::Raw(node), more_uses: 0 });
        Some(id)
    }

    /// Notes that a node is referred to once more.
    pub(super) fn use_again(&mut self, id: Id) {
        let uses = &mut self.slots[id as usize].more_uses;
        *uses = uses.saturating_add(1);
    }

    pub(super) fn node(&self, id: Id) -> Option<&Node> {
        match &self.slots[id as usize].state {
            State::Raw(node) => Some(node),
            _ => None,
        }
    }

    pub(super) fn node_mut(&mut self, id: Id) -> Option<&mut Node> {
        match &mut self.slots[id as usize].state {
            State::Raw(node) => Some(node),
            _ => None,
        }
    }

    /// Resolves everything that a node refers to.
    pub(super) fn into_value(mut self, root: Id) -> Result<Value, Error> {
        Ok(self.resolve(root, MAX_DEPTH)?.value)
    }

    /// The tree below a node, which may have so many levels.
    fn resolve(&mut self, id: Id, levels: usize) -> Result<Tree, Error> {
        let levels_below = levels.checked_sub(1).ok_or(Error::TooDeep)?;
        let slot = &mut self.slots[id as usize];
        let tree = match mem::replace(&mut slot.state, State::Gone) {
            State::Raw(node) => self.grow(node, levels_below)?,
            State::Resolved(tree) => tree,
            State::Gone => return Err(Error::Recursive),
        };
        // What was resolved elsewhere may be too high for this place.
        if tree.height > levels {
            return Err(Error::TooDeep);
        }
        if self.slots[id as usize].more_uses == 0 {
            return Ok(tree);
        }
        let left = self.copies_left.checked_sub(tree.weight);
        self.copies_left = left.ok_or(Error::TooManyCopies)?;
        let slot = &mut self.slots[id as usize];
        slot.more_uses -= 1;
        slot.state = State::Resolved(tree.clone());
        Ok(tree)
    }

    fn grow(&mut self, node: Node, levels: usize) -> Result<Tree, Error> {
        let mut below = Below { graph: self, levels, weight: size_of::<Value>(), height: 0 };
        let value = match node {
            Node::Leaf(value) => return Ok(Tree::leaf(value)),
            Node::List(items) => Value::List(below.all(items)?),
            Node::Tuple(items) => Value::Tuple(below.all(items)?),
            Node::Dict(pairs) => Value::Dict(below.pairs(pairs)?),
            Node::Set(items) => Value::Set(below.all(items)?),
            Node::FrozenSet(items) => Value::FrozenSet(below.all(items)?),
            Node::Object(parts) => {
                let object = below.object(*parts)?;
                below.weight += size_of::<Object>();
                plain::simplify(object)
            }
        };
        let least = if matches!(value, Value::ByteArray(_)) { BYTE_ARRAY_HEIGHT } else { 1 };
        Ok(Tree { value, weight: below.weight, height: least.max(below.height + 1) })
    }
}

impl Tree {
    fn leaf(value: Value) -> Self {
        let (bytes, height) = match &value {
            Value::Str(text) => (text.len(), 1),
            Value::Bytes(bytes) => (bytes.len(), 1),
            // Protocol 4 has no instruction for it, but writes a call with a tuple with bytes.
            Value::ByteArray(bytes) => (bytes.len(), BYTE_ARRAY_HEIGHT),
            Value::BigInt(number) => ((number.bits() / 8) as usize, 1),
            Value::Global(global) => (global.module.len() + global.name.len(), 1),
            _ => (0, 1),
        };
        Self { value, weight: size_of::<Value>() + bytes, height }
    }
}

/// Levels of a `bytearray` as protocol 4 writes it.
pub(super) const BYTE_ARRAY_HEIGHT: usize = 3;

/// The trees below a node, and their measures together.
struct Below<'a> {
    graph: &'a mut Graph,
    levels: usize,
    weight: usize,
    height: usize,
}

impl Below<'_> {
    fn one(&mut self, id: Id) -> Result<Value, Error> {
        let tree = self.graph.resolve(id, self.levels)?;
        self.weight = self.weight.saturating_add(tree.weight);
        self.height = self.height.max(tree.height);
        Ok(tree.value)
    }

    fn all(&mut self, ids: Vec<Id>) -> Result<Vec<Value>, Error> {
        ids.into_iter().map(|id| self.one(id)).collect()
    }

    fn pairs(&mut self, ids: Vec<Id>) -> Result<Vec<(Value, Value)>, Error> {
        let (pairs, _) = ids.as_chunks();
        pairs.iter().map(|[key, value]| Ok((self.one(*key)?, self.one(*value)?))).collect()
    }

    fn object(&mut self, parts: Parts) -> Result<Object, Error> {
        let callable = self.one(parts.callable)?;
        let arguments = match self.one(parts.arguments)? {
            Value::Tuple(arguments) => arguments,
            other => vec![other],
        };
        let keywords = match parts.keywords.map(|keywords| self.one(keywords)).transpose()? {
            Some(Value::Dict(keywords)) => keywords,
            _ => Vec::new(),
        };
        let construct = if parts.is_call { Construct::Call } else { Construct::New { keywords } };
        let mut object = Object::made(callable, construct, arguments);
        object.items = self.all(parts.items)?;
        object.pairs = self.pairs(parts.pairs)?;
        object.state = parts.state.map(|state| self.one(state)).transpose()?;
        Ok(object)
    }
}
