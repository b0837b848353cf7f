//! The names of tunnels: what a DNS label is, and which host stands directly under a domain.

/// A DNS label has at most this many characters (RFC 1035, section 2.3.4).
pub const MAX_LABEL: usize = 63;

/// The rule of labels that a text breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLabel {
    /// It is empty or longer than [`MAX_LABEL`].
    #[error("a label has 1 to 63 characters")]
    Length,
    /// It has other characters than ASCII letters, digits and hyphens.
    #[error("a label has only letters, digits and hyphens")]
    Characters,
    /// Its first or last character is a hyphen.
    #[error("a label neither starts nor ends with a hyphen")]
    OuterHyphen,
}

/// Checks that `text` is a DNS label, in upper or lower case (RFC 1123, section 2.1).
pub fn check_label(text: &str) -> Result<(), InvalidLabel> {
    if text.is_empty() || text.len() > MAX_LABEL {
        return Err(InvalidLabel::Length);
    }
    if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Err(InvalidLabel::Characters);
    }
    if text.starts_with('-') || text.ends_with('-') {
        return Err(InvalidLabel::OuterHyphen);
    }
    Ok(())
}

/// A tunnel's name: `text` in lower case, if it is a DNS label.
pub fn parse_label(text: &str) -> Result<String, InvalidLabel> {
    check_label(text)?;
    Ok(text.to_ascii_lowercase())
}

/// Where a host stands in relation to a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position<'a> {
    /// The host is the domain itself.
    Domain,
    /// Exactly one part stands before the domain. The part may be empty or no DNS label.
    Under(&'a str),
    /// The host is another domain's, or more than one part stands before the domain.
    Elsewhere,
}

/// Compares `host` with `domain`, in any case. A wildcard certificate covers one label (RFC 6125, section 6.4.3), so deeper
/// hosts are [`Position::Elsewhere`].
pub fn position<'a>(host: &'a str, domain: &str) -> Position<'a> {
    let split = host.len().checked_sub(domain.len()).and_then(|split| host.split_at_checked(split));
    let Some((before, rest)) = split else { return Position::Elsewhere };
    if !rest.eq_ignore_ascii_case(domain) {
        return Position::Elsewhere;
    }
    match before.strip_suffix('.') {
        None if before.is_empty() => Position::Domain,
        Some(part) if !part.contains('.') => Position::Under(part),
        _ => Position::Elsewhere,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_has_letters_digits_and_inner_hyphens() {
        for good in ["a", "demo", "Demo-2", "0x", "a--b", &"a".repeat(63)] {
            assert_eq!(check_label(good), Ok(()), "{good}");
        }
        for (rule, bad) in [
            (InvalidLabel::Length, ""),
            (InvalidLabel::Length, &"a".repeat(64)),
            (InvalidLabel::Characters, "a.b"),
            (InvalidLabel::Characters, "a_b"),
            (InvalidLabel::Characters, "ü"),
            (InvalidLabel::Characters, "a b"),
            (InvalidLabel::OuterHyphen, "-a"),
            (InvalidLabel::OuterHyphen, "a-"),
            (InvalidLabel::OuterHyphen, "-"),
        ] {
            assert_eq!(check_label(bad), Err(rule), "{bad}");
            assert_eq!(parse_label(bad), Err(rule), "{bad}");
        }
        assert_eq!(parse_label("Demo-2").unwrap(), "demo-2");
    }

    #[test]
    fn a_host_is_the_domain_or_one_label_under_it_or_elsewhere() {
        for (host, expected) in [
            ("example.com", Position::Domain),
            ("EXAMPLE.com", Position::Domain),
            ("demo.example.com", Position::Under("demo")),
            ("Demo.Example.Com", Position::Under("Demo")),
            ("ü.example.com", Position::Under("ü")),
            (".example.com", Position::Under("")),
            ("a.b.example.com", Position::Elsewhere),
            ("..example.com", Position::Elsewhere),
            ("demoexample.com", Position::Elsewhere),
            ("example.com.", Position::Elsewhere),
            ("example.org", Position::Elsewhere),
            ("éxample.com", Position::Elsewhere),
            ("com", Position::Elsewhere),
            ("", Position::Elsewhere),
        ] {
            assert_eq!(position(host, "example.com"), expected, "{host}");
        }
    }
}
