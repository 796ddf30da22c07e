//! The executable that this process runs.
//!
//! Functions travel between processes of the same program as offsets from the place where the
//! program was loaded. This module says where that place is, which addresses are code, and what
//! tells two builds of the program apart. All of it is read once: the main program is never
//! loaded anew, and a forked child has it at the same place.
#![allow(unsafe_code)] // Listed in SAFETY.md.

use std::ffi::{c_int, c_void};
use std::ops::Range;
use std::slice;
use std::sync::OnceLock;

/// Note of the linker with a hash over all that it wrote.
const NT_GNU_BUILD_ID: u32 = 3;

#[derive(Debug, Default)]
struct Image {
    base: usize,
    /// The addresses of the executable segments.
    code: Vec<Range<usize>>,
    build_id: Vec<u8>,
}

/// The address at which the main program was loaded: zero unless it is position-independent.
pub(crate) fn executable_base() -> usize {
    image().base
}

/// Whether `address` lies in the code of the main program.
pub(crate) fn executable_contains(address: usize) -> bool {
    image().code.iter().any(|range| range.contains(&address))
}

/// Bytes that are the same in every run of one build of the main program, and no other's.
///
/// The linker's build id, or 16 bytes of hash over the code where the linker left none.
pub(crate) fn build_id() -> Vec<u8> {
    image().build_id.clone()
}

fn image() -> &'static Image {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let mut image = Image::default();
        let data: *mut Image = &mut image;
        // SAFETY: `read_first` has the right signature, does not unwind, and gets the one
        // argument that it expects, which outlives the call.
        unsafe { libc::dl_iterate_phdr(Some(read_first), data.cast::<c_void>()) };
        image
    })
}

/// Called by the C library for each loaded object, the main program first; ends with the first.
unsafe extern "C" fn read_first(
    info: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    data: *mut c_void,
) -> c_int {
    // SAFETY: the C library passes a valid description for the time of this call.
    let info = unsafe { &*info };
    // SAFETY: `data` is the image that `image` passed in, which nobody else uses meanwhile.
    let image = unsafe { &mut *data.cast::<Image>() };
    // SAFETY: the description gives the place and the number of its program headers.
    let headers = unsafe { slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
    *image = read_image(info.dlpi_addr as usize, headers);
    1
}

fn read_image(base: usize, headers: &[libc::Elf64_Phdr]) -> Image {
    let range = |header: &libc::Elf64_Phdr| {
        let start = base.wrapping_add(header.p_vaddr as usize);
        start..start.wrapping_add(header.p_memsz as usize)
    };
    let loaded = headers.iter().filter(|header| header.p_type == libc::PT_LOAD);
    let executable: Vec<_> = loaded.filter(|header| header.p_flags & libc::PF_X != 0).collect();
    let code: Vec<_> = executable.iter().map(|header| range(header)).collect();

    let notes = headers.iter().filter(|header| header.p_type == libc::PT_NOTE);
    let linked = notes
        .filter_map(|header| {
            // SAFETY: a note segment of the main program lies inside a loaded, readable one,
            // which stays mapped and unchanged for the life of the process.
            let bytes = unsafe { bytes_of(range(header)) };
            find_build_id(bytes, header.p_align as usize)
        })
        .next();
    let build_id = linked.unwrap_or_else(|| {
        let readable = executable.iter().filter(|header| header.p_flags & libc::PF_R != 0);
        let segments = readable.map(|header| {
            // SAFETY: a loaded segment of the main program that is readable stays mapped for
            // the life of the process, and code that is not writable does not change.
            unsafe { bytes_of(range(header)) }
        });
        hash(segments).to_vec()
    });
    Image { base, code, build_id }
}

/// The bytes at an address range.
///
/// # Safety
///
/// The range must be mapped and readable for the life of the process, and nobody may write to it.
unsafe fn bytes_of(range: Range<usize>) -> &'static [u8] {
    let start = range.start as *const u8;
    // SAFETY: promised by the caller.
    unsafe { slice::from_raw_parts(start, range.len()) }
}

/// Finds the build id in a note segment: a sequence of sizes, type, name and descriptor.
fn find_build_id(mut notes: &[u8], align: usize) -> Option<Vec<u8>> {
    // 8 for the notes of newer tools, 4 for all others, whatever the header says.
    let align = if align == 8 { 8 } else { 4 };
    while let Some((header, rest)) = notes.split_at_checked(12) {
        let word = |at: usize| header[at..].first_chunk().map(|word| u32::from_ne_bytes(*word));
        let (name_len, len, kind) = (word(0)? as usize, word(4)? as usize, word(8)?);
        // Both parts are padded, counted from the start of the note.
        let start = (12 + name_len).next_multiple_of(align) - 12;
        let name = rest.get(..name_len)?;
        let descriptor = rest.get(start..start.checked_add(len)?)?;
        if kind == NT_GNU_BUILD_ID && name == b"GNU\0" && !descriptor.is_empty() {
            return Some(descriptor.to_vec());
        }
        notes = rest.get((12 + start + len).next_multiple_of(align) - 12..)?;
    }
    None
}

/// A 128-bit hash in the manner of FNV-1a, but eight bytes at a time: code can be large.
fn hash<'a>(segments: impl Iterator<Item = &'a [u8]>) -> [u8; 16] {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let mut hash = OFFSET;
    let mut mix = |word: u64| hash = (hash ^ u128::from(word)).wrapping_mul(PRIME);
    for segment in segments {
        let (words, rest) = segment.as_chunks::<8>();
        words.iter().for_each(|word| mix(u64::from_ne_bytes(*word)));
        rest.iter().for_each(|byte| mix(u64::from(*byte)));
        mix(segment.len() as u64);
    }
    hash.to_ne_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(kind: u32, name: &[u8], descriptor: &[u8], align: usize) -> Vec<u8> {
        let mut note = Vec::new();
        for number in [name.len() as u32, descriptor.len() as u32, kind] {
            note.extend(number.to_ne_bytes());
        }
        for part in [name, descriptor] {
            note.extend(part);
            note.resize(note.len().next_multiple_of(align), 0);
        }
        note
    }

    #[test]
    fn code_of_this_program_and_no_other_address_is_in_the_executable() {
        let mine = build_id as fn() -> Vec<u8> as usize;
        assert!(executable_contains(mine));
        assert!(mine > executable_base());
        let on_the_heap = Box::new(0_u8);
        assert!(!executable_contains(&raw const *on_the_heap as usize));
        assert!(!executable_contains(0));
    }

    #[test]
    fn base_is_where_the_kernel_says_the_program_begins() {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let program = std::env::current_exe().unwrap();
        let first = maps.lines().find(|line| line.ends_with(program.to_str().unwrap())).unwrap();
        let start = usize::from_str_radix(first.split('-').next().unwrap(), 16).unwrap();
        assert_eq!(executable_base(), start, "tests are built position-independent");
    }

    #[test]
    fn build_id_is_stable_and_that_of_the_file() {
        let id = build_id();
        assert_eq!(id, build_id());
        let file = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        // 16 bytes are our own hash, which is not in the file.
        assert!(id.len() == 16 || file.windows(id.len()).any(|window| window == id));
    }

    #[test]
    fn build_id_is_found_among_other_notes() {
        for align in [4, 8] {
            let mut notes = note(5, b"GNU\0", &[1; 5], align);
            notes.extend(note(NT_GNU_BUILD_ID, b"another\0", &[2; 20], align));
            assert_eq!(find_build_id(&notes, align), None);
            notes.extend(note(NT_GNU_BUILD_ID, b"GNU\0", &[3; 20], align));
            assert_eq!(find_build_id(&notes, align), Some(vec![3; 20]));
        }
    }

    #[test]
    fn damaged_notes_hold_no_build_id() {
        let whole = note(NT_GNU_BUILD_ID, b"GNU\0", &[3; 20], 4);
        for len in 0..whole.len() {
            assert_eq!(find_build_id(&whole[..len], 4), None, "cut to {len} bytes");
        }
        assert_eq!(find_build_id(&[0xFF; 64], 4), None);
    }

    #[test]
    fn hash_depends_on_each_byte_and_on_the_segments() {
        let of = |segments: &[&[u8]]| hash(segments.iter().copied());
        let code = [1_u8, 2, 3, 4, 5, 6, 7, 8, 9, 10];
        assert_eq!(of(&[&code]), of(&[&code]));
        for at in 0..code.len() {
            let mut other = code;
            other[at] ^= 0x80;
            assert_ne!(of(&[&code]), of(&[&other]), "byte {at} does not matter");
        }
        assert_ne!(of(&[&code]), of(&[&code[..5], &code[5..]]));
        assert_ne!(of(&[&code]), of(&[&code, &[]]));
    }

    #[test]
    fn program_without_notes_is_told_by_its_code() {
        static CODE: [u8; 64] = [0x90; 64];
        // SAFETY: a program header is plain numbers, for which zero is a value.
        let mut header: libc::Elf64_Phdr = unsafe { std::mem::zeroed() };
        header.p_type = libc::PT_LOAD;
        header.p_flags = libc::PF_R | libc::PF_X;
        header.p_vaddr = 16;
        header.p_memsz = 48;
        let base = &raw const CODE as usize;
        let image = read_image(base, &[header]);
        assert_eq!(image.code.len(), 1);
        assert_eq!(image.code[0], base + 16..base + 64);
        assert_eq!(image.build_id, hash([&CODE[16..]].into_iter()));
    }
}
