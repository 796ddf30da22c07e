//! Plain values as pickles, written and read without the pickler.
//!
//! Most of what goes through a queue or a pool is small and plain: a number, a text, a tuple of
//! those. For these, starting the pickler costs several times the work itself, so [`encode`]
//! writes the pickle (protocol 4) directly and [`decode`] reads it. What comes out of `encode` is
//! a valid pickle, and `decode` gives up on every pickle with an instruction that `encode` does
//! not write; either side may therefore be the real pickler.
//!
//! # What is encoded
//!
//! `None`, `bool`, `int` that fits in 64 bits, `float`, `str`, `bytes`, and `tuple`, `list` and
//! `dict` of these; of exactly these types, since a subclass may pickle itself differently.
//!
//! The pickler writes an object that occurs twice only once, and so keeps identity, recursion
//! and memory use. There is no such memo here: a value in which a container or a longer text
//! occurs twice is refused, and so is one of more than [`MAX_OBJECTS`] texts and containers,
//! where the pickler is at no disadvantage any more.
//!
//! An instance of a plain class is written and read too, see [`instance`].

mod decode;
mod encode;
mod instance;

pub(crate) use decode::decode;
pub(crate) use encode::{encode, encode_draft};
pub(crate) use instance::{decode_plain_instance, encode_plain_instance};

/// Most texts and containers in one value.
const MAX_OBJECTS: usize = 64;

/// Deepest nesting of containers.
const MAX_DEPTH: usize = 16;

/// The pickle instructions that are written and read.
mod op {
    pub(super) const PROTO: u8 = 0x80;
    pub(super) const STOP: u8 = b'.';
    pub(super) const MARK: u8 = b'(';
    pub(super) const NONE: u8 = b'N';
    pub(super) const TRUE: u8 = 0x88;
    pub(super) const FALSE: u8 = 0x89;
    pub(super) const BININT1: u8 = b'K';
    pub(super) const BININT2: u8 = b'M';
    pub(super) const BININT: u8 = b'J';
    pub(super) const LONG1: u8 = 0x8a;
    pub(super) const BINFLOAT: u8 = b'G';
    pub(super) const SHORT_BINUNICODE: u8 = 0x8c;
    pub(super) const BINUNICODE: u8 = b'X';
    pub(super) const BINUNICODE8: u8 = 0x8d;
    pub(super) const SHORT_BINBYTES: u8 = b'C';
    pub(super) const BINBYTES: u8 = b'B';
    pub(super) const BINBYTES8: u8 = 0x8e;
    pub(super) const EMPTY_TUPLE: u8 = b')';
    pub(super) const TUPLE1: u8 = 0x85;
    pub(super) const TUPLE2: u8 = 0x86;
    pub(super) const TUPLE3: u8 = 0x87;
    pub(super) const TUPLE: u8 = b't';
    pub(super) const EMPTY_LIST: u8 = b']';
    pub(super) const APPENDS: u8 = b'e';
    pub(super) const EMPTY_DICT: u8 = b'}';
    pub(super) const SETITEMS: u8 = b'u';
    pub(super) const GLOBAL: u8 = b'c';
    pub(super) const NEWOBJ: u8 = 0x81;
    pub(super) const BUILD: u8 = b'b';
}

/// The protocol written, and the only one read: 4, which every supported interpreter knows.
const PROTOCOL: u8 = 4;
