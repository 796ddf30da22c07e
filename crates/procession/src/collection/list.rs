//! The list of bytes.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;

use crate::collection::handle::{free_others, shared_container};
use crate::collection::item::{self, Content, Item};
use crate::collection::state::ListState;
use crate::collection::vector::Vector;
use crate::primitive::Ordering;
use crate::shm::{Arena, ArenaError, Handle, Shared, Taken};

/// A list of bytes that any process of the tree can use.
///
/// Everything is done with the list [locked](Self::lock), also reading; several calls on one guard
/// are one step for all others. A process that is killed at any moment leaves the list as it was
/// before or after the call that it was in. See the [module](crate::collection) for how.
///
/// # Examples
///
/// ```
/// use procession::collection::{ByteList, Item};
/// use procession::shm::Pins;
///
/// let list = ByteList::new()?;
/// list.lock().extend(vec![Item::new(&[b"value"], &Pins::default())?])?;
/// assert_eq!(&*list.lock().get(0)?.unwrap(), b"value");
/// # Ok::<(), procession::shm::ArenaError>(())
/// ```
#[derive(Debug, Clone)]
pub struct ByteList {
    state: Shared<ListState>,
}

impl ByteList {
    /// Makes an empty list.
    ///
    /// # Errors
    ///
    /// [`ArenaError`] when there is no shared memory for it.
    pub fn new() -> Result<Self, ArenaError> {
        Shared::new(|_: &ListState| ()).map(|state| Self { state })
    }
}

shared_container!(ByteList, ListGuard, "list");

/// One element of what a list is to become.
#[derive(Debug)]
pub enum Element {
    /// The one that is at this position now.
    Kept(usize),
    /// A new one.
    New(Item),
}

/// A list that this process has locked; dropping it lets others go on.
pub struct ListGuard<'a> {
    state: &'a Shared<ListState>,
    arena: &'static Arena,
    _taken: Taken<'a>,
}

impl<'a> ListGuard<'a> {
    fn new(list: &'a ByteList, arena: &'static Arena, taken: Taken<'a>) -> Self {
        let died = taken.owner_died.is_some();
        let guard = Self { state: &list.state, arena, _taken: taken };
        if died {
            guard.recover();
        }
        guard
    }

    /// Number of elements.
    ///
    /// # Errors
    ///
    /// [`ArenaError`] when shared memory is damaged.
    pub fn len(&self) -> Result<usize, ArenaError> {
        Ok(self.vector()?.map_or(0, Vector::len))
    }

    /// Whether there are none.
    ///
    /// # Errors
    ///
    /// As [`len`](Self::len).
    pub fn is_empty(&self) -> Result<bool, ArenaError> {
        Ok(self.len()? == 0)
    }

    /// A number that is another one after every change.
    pub fn version(&self) -> u64 {
        self.state.version.load(Ordering::Relaxed)
    }

    /// The element at a position, `None` behind the last.
    ///
    /// # Errors
    ///
    /// [`ArenaError`] when there is no memory for what the value names.
    pub fn get(&self, position: usize) -> Result<Option<Content>, ArenaError> {
        let word = self.vector()?.and_then(|vector| vector.word(position));
        word.map(|word| Content::read(self.arena, word)).transpose()
    }

    /// All elements, in their order.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn values(&self) -> Result<Vec<Content>, ArenaError> {
        let Some(vector) = self.vector()? else { return Ok(Vec::new()) };
        vector.words().map(|word| Content::read(self.arena, word)).collect()
    }

    /// Replaces the element at a position; false, and nothing happens, if there is none.
    ///
    /// # Errors
    ///
    /// As [`len`](Self::len).
    pub fn set(&mut self, position: usize, value: Item) -> Result<bool, ArenaError> {
        let Some(vector) = self.vector()?.filter(|vector| position < vector.len()) else {
            return Ok(false);
        };
        value.give(self.arena, self.state.handle())?;
        let old = vector.replace(position, value.into_word());
        self.touch();
        item::free(self.arena, old);
        Ok(true)
    }

    /// Adds elements behind the last, all of them or none.
    ///
    /// # Errors
    ///
    /// [`ArenaError::OutOfMemory`] when shared memory is at its limit; nothing has changed then.
    pub fn extend(&mut self, values: Vec<Item>) -> Result<(), ArenaError> {
        if values.is_empty() {
            return Ok(());
        }
        let vector = self.room_for(values.len())?;
        for value in &values {
            value.give(self.arena, self.state.handle())?;
        }
        let Range { start, end } = vector.range();
        let count = values.len();
        for (distance, value) in values.into_iter().enumerate() {
            vector.write_behind(distance, value.into_word());
        }
        vector.set_range(start..end + count);
        self.touch();
        Ok(())
    }

    /// Removes the elements at these positions; what lies behind the last is left out.
    ///
    /// # Errors
    ///
    /// [`ArenaError::OutOfMemory`] when there is no memory to move the rest; nothing has changed
    /// then. Elements at either end need none.
    pub fn remove(&mut self, positions: Range<usize>) -> Result<(), ArenaError> {
        let Some(vector) = self.vector()? else { return Ok(()) };
        let len = vector.len();
        let end = positions.end.min(len);
        let start = positions.start.min(end);
        if start == end {
            return Ok(());
        }
        if start != 0 && end != len {
            return self.rearrange((0..start).chain(end..len).map(Element::Kept).collect());
        }
        let removed: Vec<u64> = (start..end).filter_map(|at| vector.word(at)).collect();
        let whole = vector.range();
        let left = if end == len {
            whole.start..whole.start + start
        } else {
            whole.start + end..whole.end
        };
        vector.set_range(left);
        self.touch();
        removed.into_iter().for_each(|word| item::free(self.arena, word));
        Ok(())
    }

    /// Removes the element at a position and returns it, `None` behind the last.
    ///
    /// # Errors
    ///
    /// As [`remove`](Self::remove).
    pub fn take(&mut self, position: usize) -> Result<Option<Content>, ArenaError> {
        let content = self.get(position)?;
        if content.is_some() {
            self.remove(position..position + 1)?;
        }
        Ok(content)
    }

    /// Makes the list consist of these elements, in this order. Those that are not kept are
    /// removed, and a position that is named again, or that there is not, is left out.
    ///
    /// # Errors
    ///
    /// [`ArenaError::OutOfMemory`] when shared memory is at its limit; nothing has changed then.
    pub fn rearrange(&mut self, elements: Vec<Element>) -> Result<(), ArenaError> {
        let old: Vec<u64> = self.vector()?.iter().flat_map(|old| old.words()).collect();
        let (block, vector) = self.make(elements.len())?;
        // Only now does this become the list's, so that what is refused is freed.
        let unused = Unused { arena: self.arena, block };
        let mut kept = vec![false; old.len()];
        let mut words = Vec::with_capacity(elements.len());
        let mut new = Vec::new();
        for element in elements {
            match element {
                Element::New(value) => {
                    value.give(self.arena, self.state.handle())?;
                    words.push(value.word());
                    new.push(value);
                }
                Element::Kept(at) if kept.get(at) == Some(&false) => {
                    kept[at] = true;
                    words.push(old[at]);
                }
                Element::Kept(_) => {}
            }
        }
        for (distance, word) in words.iter().enumerate() {
            vector.write_behind(distance, *word);
        }
        vector.set_range(0..words.len());
        self.publish(unused.used());
        // From here on they are the list's.
        new.into_iter().for_each(std::mem::forget::<Item>);
        self.touch();
        let removed = old.into_iter().zip(kept).filter(|(_, kept)| !kept);
        removed.for_each(|(word, _)| item::free(self.arena, word));
        Ok(())
    }

    /// Removes all elements.
    ///
    /// # Errors
    ///
    /// As [`len`](Self::len).
    pub fn clear(&mut self) -> Result<(), ArenaError> {
        let Some(vector) = self.vector()? else { return Ok(()) };
        let words: Vec<u64> = vector.words().collect();
        self.publish(Handle::NONE);
        self.touch();
        words.into_iter().for_each(|word| item::free(self.arena, word));
        Ok(())
    }

    fn vector(&self) -> Result<Option<Vector<'static>>, ArenaError> {
        match self.state.vector.load(Ordering::Relaxed) {
            0 => Ok(None),
            raw => Vector::at(self.arena, Handle::from_raw(raw)).map(Some),
        }
    }

    /// A new block, with room for some more than `len` elements.
    fn make(&self, len: usize) -> Result<(Handle, Vector<'static>), ArenaError> {
        Vector::make(self.arena, len.saturating_add(len / 8), self.state.handle())
    }

    /// Puts another block in the place of the one that there is, and frees that.
    fn publish(&self, block: Handle) {
        let before = Handle::from_raw(self.state.vector.load(Ordering::Relaxed));
        self.state.vector.store(block.raw(), Ordering::Release);
        if !before.is_none() {
            self.arena.free(before);
        }
    }

    /// The block, with room for so many more words behind the last.
    fn room_for(&self, more: usize) -> Result<Vector<'static>, ArenaError> {
        let old = self.vector()?;
        if let Some(vector) = old
            && more <= vector.room()
        {
            return Ok(vector);
        }
        let len = old.map_or(0, Vector::len);
        // Half of it is free afterwards, so that this pays for as many appended.
        let (block, vector) = self.make(len.saturating_mul(2).saturating_add(more))?;
        for (distance, word) in old.iter().flat_map(|old| old.words()).enumerate() {
            vector.write_behind(distance, word);
        }
        vector.set_range(0..len);
        self.publish(block);
        Ok(vector)
    }

    fn touch(&self) {
        let version = self.state.version.load(Ordering::Relaxed);
        self.state.version.store(version.wrapping_add(1), Ordering::Relaxed);
    }

    /// Frees the blocks of the list that nothing in it leads to; the holder before was killed.
    #[cold]
    fn recover(&self) {
        self.touch();
        // What cannot be read now cannot be read by the call that follows, which says so.
        let Ok(vector) = self.vector() else { return };
        let mut reachable = HashSet::from([self.state.vector.load(Ordering::Relaxed)]);
        let words = vector.iter().flat_map(|vector| vector.words());
        reachable.extend(words.filter_map(item::block_of).map(Handle::raw));
        free_others(self.arena, self.state.handle(), &reachable);
    }

    /// Number of blocks that belong to the list.
    #[cfg(test)]
    pub(super) fn blocks(&self) -> usize {
        self.arena.children_of(self.state.handle()).len()
    }
}

/// A block that is freed unless it is used.
struct Unused {
    arena: &'static Arena,
    block: Handle,
}

impl Unused {
    fn used(self) -> Handle {
        let block = self.block;
        std::mem::forget(self);
        block
    }
}

impl Drop for Unused {
    fn drop(&mut self) {
        self.arena.free(self.block);
    }
}

impl fmt::Debug for ListGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListGuard").field("version", &self.version()).finish_non_exhaustive()
    }
}
