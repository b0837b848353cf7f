//! The ids of stored keys. A stored key's text is `cok_<id>_<secret>`, so that it names the row that it belongs to.

/// The beginning of every key.
const PREFIX: &str = "cok_";
/// The length of an id.
const LENGTH: usize = 12;
/// The characters of an id.
const ALPHABET: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
/// Random bytes below this are distributed evenly over the alphabet.
const EVEN: u8 = 252;

/// Makes a random id.
pub(super) fn generate() -> Result<String, getrandom::Error> {
    let mut id = String::with_capacity(LENGTH);
    let mut random = [0; 4 * LENGTH];
    while id.len() < LENGTH {
        getrandom::fill(&mut random)?;
        let even = random.iter().filter(|byte| **byte < EVEN);
        let characters = even.map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]));
        id.extend(characters.take(LENGTH - id.len()));
    }
    Ok(id)
}

/// Whether a text is an id of a stored key.
pub(super) fn is_valid(text: &str) -> bool {
    text.len() == LENGTH && text.bytes().all(|byte| ALPHABET.contains(&byte))
}

/// The id in a key's text, if it has one. The secret begins after it and may contain `_` itself.
pub(super) fn of_key(text: &str) -> Option<&str> {
    let (id, _secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
    is_valid(id).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_its_id() {
        assert_eq!(of_key("cok_abcdefghij01_x_y"), Some("abcdefghij01"));
        for other in
            ["", "cok_", "cok_abc_x", "cok_Abcdefghij01_x", "cok_abcdefghij01", "abcdefghij01_x", "cok_äbcdefghij1_x"]
        {
            assert_eq!(of_key(other), None, "{other}");
        }
        let (one, other) = (generate().unwrap(), generate().unwrap());
        assert!(is_valid(&one) && is_valid(&other) && one != other);
    }
}
