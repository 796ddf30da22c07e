//! Runs the instructions of a pickle.
//!
//! They are for a machine with a stack, on which there may be marks, and a memo of values by number.
//! The machine here knows no classes and calls nothing.

use num_bigint::BigInt;

use crate::pickle::error::Error;
use crate::pickle::graph::{Graph, Id, Node, Parts};
use crate::pickle::input::Input;
use crate::pickle::op;
use crate::pickle::value::{Global, Value};

/// The newest protocol that is understood.
const NEWEST: u8 = 5;

/// Most digits of a number that is written in digits. Python has the same limit, as reading them
/// takes time in proportion to their square.
const MOST_DIGITS: usize = 4300;

/// Modules that have another name in Python 2, by which protocols before 3 call them. Of the many
/// there are, those that plain values and exceptions need; others keep the name that was sent.
const RENAMED: [(&str, &str); 3] =
    [("__builtin__", "builtins"), ("copy_reg", "copyreg"), ("exceptions", "builtins")];

pub(super) fn decode(bytes: &[u8]) -> Result<Value, Error> {
    let mut machine = Machine {
        input: Input::new(bytes),
        protocol: 0,
        graph: Graph::new(bytes.len()),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: Vec::new(),
    };
    machine.run()?;
    let root = machine.pop()?;
    if !machine.stack.is_empty() || !machine.marks.is_empty() {
        return Err(machine.input.malformed("a value too many"));
    }
    if !machine.input.is_at_end() {
        return Err(machine.input.malformed("something behind its end"));
    }
    machine.graph.into_value(root)
}

struct Machine<'a> {
    input: Input<'a>,
    protocol: u8,
    graph: Graph,
    stack: Vec<Id>,
    /// Heights of the stack that were marked.
    marks: Vec<usize>,
    memo: Vec<Option<Id>>,
}

impl Machine<'_> {
    fn run(&mut self) -> Result<(), Error> {
        loop {
            match self.input.instruction()? {
                op::STOP => return Ok(()),
                op::PROTO => self.set_protocol()?,
                // Only a hint at how much to read at a time.
                op::FRAME => _ = self.input.array::<8>()?,
                code => self.step(code)?,
            }
        }
    }

    fn set_protocol(&mut self) -> Result<(), Error> {
        let [protocol] = self.input.array()?;
        if protocol > NEWEST {
            return Err(self.input.unsupported("a protocol newer than 5"));
        }
        self.protocol = protocol;
        Ok(())
    }

    fn step(&mut self, code: u8) -> Result<(), Error> {
        match code {
            op::MARK => self.marks.push(self.stack.len()),
            op::POP | op::POP_MARK | op::DUP => self.rearrange(code)?,
            op::PUT | op::BINPUT | op::LONG_BINPUT | op::MEMOIZE => self.remember(code)?,
            op::GET | op::BINGET | op::LONG_BINGET => self.recall(code)?,
            op::APPEND | op::APPENDS | op::ADDITEMS => self.add_items(code)?,
            op::SETITEM | op::SETITEMS => self.set_items(code)?,
            op::REDUCE | op::NEWOBJ | op::NEWOBJ_EX => self.make_object(code)?,
            op::BUILD => self.set_state()?,
            op::PERSID | op::BINPERSID => {
                return Err(self.input.unsupported("a persistent id"));
            }
            op::EXT1 | op::EXT2 | op::EXT4 => {
                return Err(self.input.unsupported("a code of copyreg's extension registry"));
            }
            op::NEXT_BUFFER | op::READONLY_BUFFER => {
                return Err(self.input.unsupported("a buffer that was sent apart from it"));
            }
            code => {
                let node = self.new_node(code)?;
                self.push(node)?;
            }
        }
        Ok(())
    }

    /// The node that an instruction makes.
    fn new_node(&mut self, code: u8) -> Result<Node, Error> {
        Ok(match code {
            op::EMPTY_LIST => Node::List(Vec::new()),
            op::EMPTY_TUPLE => Node::Tuple(Vec::new()),
            op::EMPTY_DICT => Node::Dict(Vec::new()),
            op::EMPTY_SET => Node::Set(Vec::new()),
            op::LIST => Node::List(self.pop_to_mark()?),
            op::TUPLE => Node::Tuple(self.pop_to_mark()?),
            op::DICT => Node::Dict(self.pop_pairs()?),
            op::FROZENSET => Node::FrozenSet(self.pop_to_mark()?),
            op::TUPLE1 => Node::Tuple(self.pop_many(1)?),
            op::TUPLE2 => Node::Tuple(self.pop_many(2)?),
            op::TUPLE3 => Node::Tuple(self.pop_many(3)?),
            op::GLOBAL => Node::Leaf(self.global()?.into()),
            op::STACK_GLOBAL => Node::Leaf(self.stack_global()?.into()),
            op::INT | op::LONG | op::FLOAT => Node::Leaf(self.number_in_digits(code)?),
            code => Node::Leaf(self.scalar(code)?),
        })
    }

    fn scalar(&mut self, code: u8) -> Result<Value, Error> {
        let input = &mut self.input;
        Ok(match code {
            op::NONE => Value::None,
            op::NEWTRUE => Value::Bool(true),
            op::NEWFALSE => Value::Bool(false),
            op::BININT => Value::Int(i32::from_le_bytes(input.array()?).into()),
            op::BININT1 => Value::Int(u8::from_le_bytes(input.array()?).into()),
            op::BININT2 => Value::Int(u16::from_le_bytes(input.array()?).into()),
            op::LONG1 => BigInt::from_signed_bytes_le(input.counted::<1>()?).into(),
            op::LONG4 => BigInt::from_signed_bytes_le(input.counted::<4>()?).into(),
            op::BINFLOAT => Value::Float(f64::from_be_bytes(input.array()?)),
            op::SHORT_BINBYTES => Value::Bytes(input.counted::<1>()?.to_owned()),
            op::BINBYTES => Value::Bytes(input.counted::<4>()?.to_owned()),
            op::BINBYTES8 => Value::Bytes(input.counted::<8>()?.to_owned()),
            op::BYTEARRAY8 => Value::ByteArray(input.counted::<8>()?.to_owned()),
            op::SHORT_BINUNICODE => Value::Str(utf_8(input, Input::counted::<1>)?),
            op::BINUNICODE => Value::Str(utf_8(input, Input::counted::<4>)?),
            op::BINUNICODE8 => Value::Str(utf_8(input, Input::counted::<8>)?),
            op::UNICODE => Value::Str(escaped_text(input)?),
            _ => return Err(input.malformed("an unknown instruction")),
        })
    }

    fn number_in_digits(&mut self, code: u8) -> Result<Value, Error> {
        let line = self.input.text_line()?;
        let value = match (code, line) {
            (op::FLOAT, line) => line.parse().ok().map(Value::Float),
            (op::INT, "00") => Some(Value::Bool(false)),
            (op::INT, "01") => Some(Value::Bool(true)),
            (_, line) => integer(line.strip_suffix('L').unwrap_or(line)),
        };
        value.ok_or_else(|| self.input.malformed("a number that is none"))
    }

    fn global(&mut self) -> Result<Global, Error> {
        let (module, name) = (self.input.text_line()?, self.input.text_line()?);
        let renamed = RENAMED.iter().find(|(old, _)| *old == module && self.protocol < 3);
        Ok(Global::new(renamed.map_or(module, |(_, new)| new), name))
    }

    fn stack_global(&mut self) -> Result<Global, Error> {
        let names = self.pop_many(2)?;
        match [0, 1].map(|at: usize| self.graph.node(names[at])) {
            [Some(Node::Leaf(Value::Str(module))), Some(Node::Leaf(Value::Str(name)))] => {
                Ok(Global::new(module, name))
            }
            _ => Err(self.input.malformed("a name that is no str")),
        }
    }

    fn push(&mut self, node: Node) -> Result<(), Error> {
        let id = self.graph.add(node);
        let id = id.ok_or_else(|| self.input.unsupported("more than 2**32 values"))?;
        self.stack.push(id);
        Ok(())
    }

    /// Takes what is on top of the stack, but nothing below the last mark.
    fn pop(&mut self) -> Result<Id, Error> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err(self.input.malformed("a value too few"));
        }
        self.stack.pop().ok_or_else(|| self.input.malformed("a value too few"))
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<Id>, Error> {
        let mut popped = Vec::with_capacity(count);
        for _ in 0..count {
            popped.push(self.pop()?);
        }
        popped.reverse();
        Ok(popped)
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>, Error> {
        let mark = self.marks.pop().ok_or_else(|| self.input.malformed("a mark too few"))?;
        Ok(self.stack.split_off(mark))
    }

    fn pop_pairs(&mut self) -> Result<Vec<Id>, Error> {
        let pairs = self.pop_to_mark()?;
        if pairs.len().is_multiple_of(2) {
            return Ok(pairs);
        }
        Err(self.input.malformed("a key without a value"))
    }

    /// The node on top of the stack, which stays there.
    fn top(&mut self) -> Result<(Id, &mut Node), Error> {
        let id = self.pop()?;
        self.stack.push(id);
        match self.graph.node_mut(id) {
            Some(node) => Ok((id, node)),
            None => Err(self.input.malformed("a value too few")),
        }
    }

    fn rearrange(&mut self, code: u8) -> Result<(), Error> {
        match code {
            op::DUP => {
                let (id, _) = self.top()?;
                self.graph.use_again(id);
                self.stack.push(id);
            }
            // A mark is popped like a value.
            op::POP if self.marks.last() == Some(&self.stack.len()) => _ = self.marks.pop(),
            op::POP => {
                let id = self.pop()?;
                // How the state of an object is set by a function of its class: for its effect.
                if matches!(self.graph.node(id), Some(Node::Object(parts)) if parts.is_call) {
                    return Err(self.input.unsupported("a call for its effect only"));
                }
            }
            _ => _ = self.pop_to_mark()?,
        }
        Ok(())
    }

    fn remember(&mut self, code: u8) -> Result<(), Error> {
        let number = match code {
            op::MEMOIZE => self.memo.len(),
            op::PUT => self.number_in_line()?,
            op::BINPUT => u8::from_le_bytes(self.input.array()?).into(),
            _ => u32::from_le_bytes(self.input.array()?) as usize,
        };
        // Python numbers them from 0 on.
        if number >= self.input.len() {
            return Err(self.input.malformed("a number beyond the memo"));
        }
        let (id, _) = self.top()?;
        if number >= self.memo.len() {
            self.memo.resize(number + 1, None);
        }
        self.memo[number] = Some(id);
        Ok(())
    }

    fn recall(&mut self, code: u8) -> Result<(), Error> {
        let number = match code {
            op::GET => self.number_in_line()?,
            op::BINGET => u8::from_le_bytes(self.input.array()?).into(),
            _ => u32::from_le_bytes(self.input.array()?) as usize,
        };
        let known = self.memo.get(number).copied().flatten();
        let id = known.ok_or_else(|| self.input.malformed("a number that is not in the memo"))?;
        self.graph.use_again(id);
        self.stack.push(id);
        Ok(())
    }

    fn number_in_line(&mut self) -> Result<usize, Error> {
        let line = self.input.text_line()?;
        line.parse().map_err(|_| self.input.malformed("a number that is none"))
    }

    fn add_items(&mut self, code: u8) -> Result<(), Error> {
        let added = if code == op::APPEND { self.pop_many(1)? } else { self.pop_to_mark()? };
        match (self.top()?.1, code) {
            (Node::Set(items), op::ADDITEMS) => items.extend(added),
            (Node::List(items), op::APPEND | op::APPENDS) => items.extend(added),
            (Node::Object(parts), op::APPEND | op::APPENDS) => parts.items.extend(added),
            _ => return Err(self.input.malformed("items for what has none")),
        }
        Ok(())
    }

    fn set_items(&mut self, code: u8) -> Result<(), Error> {
        let added = if code == op::SETITEM { self.pop_many(2)? } else { self.pop_pairs()? };
        match self.top()?.1 {
            Node::Dict(pairs) => pairs.extend(added),
            Node::Object(parts) => parts.pairs.extend(added),
            _ => return Err(self.input.malformed("items for what has none")),
        }
        Ok(())
    }

    fn make_object(&mut self, code: u8) -> Result<(), Error> {
        let keywords = if code == op::NEWOBJ_EX { Some(self.pop()?) } else { None };
        let arguments = self.pop()?;
        let callable = self.pop()?;
        let is_dict = |id: &Id| matches!(self.graph.node(*id), Some(Node::Dict(_)));
        if !matches!(self.graph.node(arguments), Some(Node::Tuple(_)))
            || !keywords.as_ref().is_none_or(is_dict)
        {
            return Err(self.input.malformed("arguments that are none"));
        }
        let parts = Parts {
            callable,
            is_call: code == op::REDUCE,
            arguments,
            keywords,
            items: Vec::new(),
            pairs: Vec::new(),
            state: None,
        };
        self.push(Node::Object(Box::new(parts)))
    }

    fn set_state(&mut self) -> Result<(), Error> {
        let state = self.pop()?;
        match self.top()?.1 {
            Node::Object(parts) if parts.state.is_none() => parts.state = Some(state),
            _ => return Err(self.input.malformed("a state for what has none")),
        }
        Ok(())
    }
}

fn integer(digits: &str) -> Option<Value> {
    let unsigned = digits.strip_prefix('-').unwrap_or(digits);
    let is_number = (1..=MOST_DIGITS).contains(&unsigned.len())
        && unsigned.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { digits.parse::<BigInt>().ok().map(Value::from) } else { None }
}

type Taken<'a> = fn(&mut Input<'a>) -> Result<&'a [u8], Error>;

fn utf_8<'a>(input: &mut Input<'a>, take: Taken<'a>) -> Result<String, Error> {
    let bytes = take(input)?;
    match str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_owned()),
        // Python lets surrogates through, as three bytes that begin like this.
        Err(error) => match bytes[error.valid_up_to()..] {
            [0xed, 0xa0..=0xbf, 0x80..=0xbf, ..] => Err(input.surrogate()),
            _ => Err(input.malformed("a str that is not in UTF-8")),
        },
    }
}

/// A line of characters below 256, in which others are written as `\u` and four hexadecimal digits or
/// `\U` and eight.
fn escaped_text(input: &mut Input<'_>) -> Result<String, Error> {
    let mut rest = input.line()?;
    let mut text = String::new();
    while let Some((byte, after)) = rest.split_first() {
        let digits = match (byte, after.first()) {
            (b'\\', Some(b'u')) => 4,
            (b'\\', Some(b'U')) => 8,
            _ => {
                text.push(char::from(*byte));
                rest = after;
                continue;
            }
        };
        let hex = after.get(1..=digits).and_then(|hex| str::from_utf8(hex).ok());
        let number = hex.and_then(|hex| u32::from_str_radix(hex, 16).ok());
        text.push(match number {
            Some(0xd800..=0xdfff) => return Err(input.surrogate()),
            number => number
                .and_then(char::from_u32)
                .ok_or_else(|| input.malformed("an escape that is none"))?,
        });
        rest = &after[digits + 1..];
    }
    Ok(text)
}
