//! What an image's qcow2 file may not have: a name of another file. Whoever opens the image opens that
//! file too, and the guest reads it.

/// Bytes from the beginning that tell.
pub const HEAD_BYTES: usize = 104;

/// Why a qcow2 file that begins like this must not be opened, if it must not.
///
/// # Errors
/// The reason in a sentence.
pub fn check(head: &[u8]) -> Result<(), &'static str> {
    const MAGIC: &[u8] = b"QFI\xfb";
    const EXTERNAL_DATA: u64 = 1 << 2;
    let number = |at: usize, bytes: usize| -> Option<u64> {
        let field = head.get(at..at + bytes)?;
        Some(field.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    };
    if !head.starts_with(MAGIC) {
        return Err("is no qcow2 file");
    }
    let (version, backing) = (number(4, 4), number(8, 8));
    let incompatible = if version == Some(2) { Some(0) } else { number(72, 8) };
    match (version, backing, incompatible) {
        (Some(2 | 3), Some(0), Some(features)) if features & EXTERNAL_DATA == 0 => Ok(()),
        (Some(2 | 3), Some(0), Some(_)) => Err("keeps its data in another file"),
        (Some(2 | 3), Some(_), Some(_)) => Err("rests on another file"),
        _ => Err("has a header that cannot be read"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(version: u8, backing: u8, features: u8) -> Vec<u8> {
        let mut head = vec![0; HEAD_BYTES];
        head[..4].copy_from_slice(b"QFI\xfb");
        head[7] = version;
        head[15] = backing;
        head[79] = features;
        head
    }

    #[test]
    fn no_other_file_is_named() {
        let table = [
            (head(3, 0, 0), true),
            (head(2, 0, 0xff), true),
            (head(3, 0, 1), true),
            (head(3, 200, 0), false),
            (head(2, 200, 0), false),
            (head(3, 0, 4), false),
            (head(4, 0, 0), false),
            (head(3, 0, 0)[..40].to_vec(), false),
            (vec![0; HEAD_BYTES], false),
            (Vec::new(), false),
        ];
        for (head, good) in table {
            assert_eq!(check(&head).is_ok(), good, "{head:?}");
        }
    }
}
