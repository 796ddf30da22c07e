//! The header of a message: its length.
//!
//! Four bytes, big-endian and signed; where that is not enough, -1 and then eight bytes, unsigned.

/// Bytes of the usual header.
pub(crate) const SHORT: usize = 4;
/// Bytes of the header of a message of 2 GiB and more.
pub(crate) const LONG: usize = 12;

const ESCAPE: i32 = -1;

/// A header to be sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    bytes: [u8; LONG],
    len: usize,
}

impl Header {
    /// The header of a message of this many bytes.
    pub(crate) fn of(length: usize) -> Self {
        let mut bytes = [0; LONG];
        let len = match i32::try_from(length) {
            Ok(short) => {
                bytes[..SHORT].copy_from_slice(&short.to_be_bytes());
                SHORT
            }
            Err(_) => {
                bytes[..SHORT].copy_from_slice(&ESCAPE.to_be_bytes());
                bytes[SHORT..].copy_from_slice(&(length as u64).to_be_bytes());
                LONG
            }
        };
        Self { bytes, len }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// What the first bytes of a header say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// The header has this many bytes.
    Needs(usize),
    /// The message has this many bytes.
    Length(u64),
    /// No header begins like that.
    Nonsense,
}

/// Reads a header of which these bytes are there.
pub(crate) fn parse(bytes: &[u8]) -> Parsed {
    let Some((short, rest)) = bytes.split_first_chunk::<SHORT>() else {
        return Parsed::Needs(SHORT);
    };
    match i32::from_be_bytes(*short) {
        ESCAPE => match rest.first_chunk() {
            Some(long) => Parsed::Length(u64::from_be_bytes(*long)),
            None => Parsed::Needs(LONG),
        },
        short => u64::try_from(short).map_or(Parsed::Nonsense, Parsed::Length),
    }
}

/// Bytes of the header that a message begins with, which must be there.
pub(super) fn length_of_header(bytes: &[u8]) -> usize {
    if bytes.starts_with(&ESCAPE.to_be_bytes()) { LONG } else { SHORT }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn headers_are_what_cpython_writes() {
        assert_eq!(Header::of(0).bytes(), [0, 0, 0, 0]);
        assert_eq!(Header::of(100).bytes(), [0, 0, 0, 100]);
        assert_eq!(Header::of(0x7fff_ffff).bytes(), [0x7f, 0xff, 0xff, 0xff]);
        let beyond = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0x80, 0, 0, 5];
        assert_eq!(Header::of(0x8000_0005).bytes(), beyond);
    }

    #[test]
    fn negative_length_is_nonsense() {
        assert_eq!(parse(&(-2_i32).to_be_bytes()), Parsed::Nonsense);
        assert_eq!(parse(b"\x80\0\0\0"), Parsed::Nonsense);
    }

    proptest! {
        #[test]
        fn every_length_comes_back(length: usize) {
            let header = Header::of(length);
            for part in 0..header.bytes().len() {
                let needs = if part < SHORT { SHORT } else { LONG };
                prop_assert_eq!(parse(&header.bytes()[..part]), Parsed::Needs(needs));
            }
            prop_assert_eq!(parse(header.bytes()), Parsed::Length(length as u64));
        }
    }
}
