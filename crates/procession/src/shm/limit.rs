//! How much memory an arena may take.

use crate::sys::cpu;

/// Overrides the limit: a number of bytes, or one with the suffix K, M, G or T.
const OVERRIDE: &str = "PROCESSION_ARENA_MAX";

/// The limit in bytes: what `PROCESSION_ARENA_MAX` says, else half of the memory of the machine
/// or of the process's control group, whichever is less. Half is what the system allows a
/// `tmpfs` too; it leaves room for the processes themselves.
pub(super) fn limit() -> u64 {
    let set = std::env::var(OVERRIDE).ok();
    set.and_then(|text| parse(&text)).unwrap_or_else(|| cpu::memory_limit() / 2)
}

fn parse(text: &str) -> Option<u64> {
    let text = text.trim();
    let (digits, shift) = match text.char_indices().last()? {
        (at, 'k' | 'K') => (&text[..at], 10),
        (at, 'm' | 'M') => (&text[..at], 20),
        (at, 'g' | 'G') => (&text[..at], 30),
        (at, 't' | 'T') => (&text[..at], 40),
        _ => (text, 0),
    };
    digits.trim().parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn sizes_are_read_with_and_without_a_suffix() {
        assert_eq!(parse("4096"), Some(4096));
        assert_eq!(parse(" 2G "), Some(2 << 30));
        assert_eq!(parse("512m"), Some(512 << 20));
        assert_eq!(parse("lots"), None);
        assert_eq!(parse(""), None);
        assert_eq!(parse("99999999999T"), None);
    }
}
