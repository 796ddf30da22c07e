//! Dictionaries and lists in shared memory, for any process of a tree.
//!
//! | type         | what it is                                                                |
//! |--------------|---------------------------------------------------------------------------|
//! | [`Dict`]     | values of one type under keys of another, in the order of insertion        |
//! | [`List`]     | values of one type, by their positions                                     |
//! | [`ByteDict`] | the same for bytes: what the others are built on, and other languages use  |
//! | [`ByteList`] | likewise                                                                    |
//!
//! A container lies in the arena. Handles to it are cheap to clone and can be sent anywhere inside
//! the tree; it goes with the last of them. No server is needed: each process reads and changes it
//! itself, with the container's lock held. Values are copies: what was put in does not change any
//! more, and what is taken out is the taker's own. Shared objects that a value names, queues or
//! other containers for instance, live as long as the value does. A container that is, by whatever
//! way, in itself is never let go of before the tree ends. Descriptors do not belong into a value: what
//! stands for one in a message can be used once.
//!
//! Every operation, also one on many values, is seen by others as a whole or not at all.
//!
//! # The protocol
//!
//! `state` has the words of the two headers, `item` those that stand for a value, `table` the block
//! of a dict with its entries, `vector` that of a list. Everything is written with the lock held,
//! and each operation takes effect by **one store**, which releases:
//!
//! | operation                       | takes effect by the store of                                |
//! |---------------------------------|-------------------------------------------------------------|
//! | dict: new key                   | `used`, behind an entry that is written already              |
//! | dict: replace a value           | the entry's value word                                       |
//! | dict: remove, pop               | 0 to the entry's value word                                  |
//! | dict: several at once           | `used` if all keys are new; else `pending`, the handle of a journal |
//! | dict: clear; make room          | `table`                                                      |
//! | list: replace a value           | the value word                                               |
//! | list: append, extend            | `range`, behind words that are written already               |
//! | list: remove at either end      | `range`                                                      |
//! | list: all else; make room       | `vector`, to a new block that holds the same words in their new order |
//!
//! What was there before is freed after that store.
//!
//! # When a process dies
//!
//! | killed                                    | what is left                                           |
//! |-------------------------------------------|--------------------------------------------------------|
//! | before it holds the lock                  | its own blocks, which its burial frees                 |
//! | with the lock, before the store           | the container as before; blocks that belong to it and that nothing leads to |
//! | with the lock, after the store            | the container as after; the same, and what is derived is out of date |
//! | after it let go of the lock               | nothing                                                |
//!
//! The next one to take the lock is told that its holder died. It completes a journal that is
//! pending (which, done again, changes nothing), derives anew what is derived (a dict's index and
//! counts), and frees the blocks that nothing leads to. Killed in the middle of that, it leaves the
//! lock to one who does it all again. So a death leaves no operation half done, and no block lost.
//!
//! # Examples
//!
//! ```
//! use procession::collection::{Dict, List};
//!
//! let ages: Dict<String, u32> = Dict::new()?;
//! ages.insert("Ada", &36)?;
//! assert_eq!(ages.get("Ada")?, Some(36));
//!
//! let names = List::new()?;
//! names.extend(["a", "b"].map(str::to_owned).iter())?;
//! assert_eq!(names.to_vec()?, ["a", "b"]);
//! # Ok::<(), procession::collection::CollectionError>(())
//! ```

mod dict;
mod error;
mod handle;
mod item;
mod list;
mod state;
mod table;
#[cfg(all(test, not(loom)))]
mod tests;
mod typed_dict;
mod typed_list;
mod vector;

pub use dict::key::{Change, Key, NewKey, StoredKey};
pub use dict::{ByteDict, DictGuard};
pub use error::CollectionError;
pub use item::{Content, Item};
pub use list::{ByteList, Element, ListGuard};
pub use typed_dict::Dict;
pub use typed_list::List;
