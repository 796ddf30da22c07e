//! The bytes of a pickle, from the first to the last.

use crate::pickle::error::Error;

/// What has not been read yet.
#[derive(Debug)]
pub(super) struct Input<'a> {
    bytes: &'a [u8],
    next: usize,
    /// Where the present instruction begins.
    instruction: usize,
}

impl<'a> Input<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, next: 0, instruction: 0 }
    }

    /// Bytes of the whole pickle.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.next == self.bytes.len()
    }

    /// The next instruction.
    pub(super) fn instruction(&mut self) -> Result<u8, Error> {
        self.instruction = self.next;
        let [code] = self.array()?;
        Ok(code)
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Error> {
        let end = self.next.checked_add(count);
        let taken = end.and_then(|end| self.bytes.get(self.next..end));
        let taken = taken.ok_or_else(|| self.malformed("more is announced than follows"))?;
        self.next += count;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| self.malformed("more is announced than follows"))
    }

    /// As many bytes as the `N` bytes in front of them say.
    pub(super) fn counted<const N: usize>(&mut self) -> Result<&'a [u8], Error> {
        let mut length = [0; 8];
        length[..N].copy_from_slice(&self.array::<N>()?);
        let length = usize::try_from(u64::from_le_bytes(length));
        self.take(length.map_err(|_| self.malformed("more is announced than follows"))?)
    }

    /// The rest of a line, without its end.
    pub(super) fn line(&mut self) -> Result<&'a [u8], Error> {
        let rest = &self.bytes[self.next..];
        let end = rest.iter().position(|byte| *byte == b'\n');
        let end = end.ok_or_else(|| self.malformed("a line without an end"))?;
        self.next += end + 1;
        Ok(&rest[..end])
    }

    pub(super) fn text_line(&mut self) -> Result<&'a str, Error> {
        let line = self.line()?;
        str::from_utf8(line).map_err(|_| self.malformed("a line that is no text"))
    }

    pub(super) fn malformed(&self, problem: &'static str) -> Error {
        Error::Malformed { at: self.instruction, problem }
    }

    pub(super) fn unsupported(&self, what: &'static str) -> Error {
        Error::Unsupported { at: self.instruction, what }
    }

    pub(super) fn surrogate(&self) -> Error {
        Error::Surrogate { at: self.instruction }
    }
}
