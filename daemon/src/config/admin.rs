//! The section `[admin]`.

use cok_host::settings::Section;

use crate::admin::Config;

/// Reads the section.
pub(super) fn admin(mut section: Section<'_>) -> Config {
    let host = "a host name or address without a port, such as \"cokd.internal\"";
    let is_host = |text: &str| {
        let characters =
            text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b':' | b'_'));
        let name_with_port = text.contains(':') && text.parse::<std::net::Ipv6Addr>().is_err();
        (!text.is_empty() && characters && !name_with_port).then(|| text.to_owned())
    };
    let config = Config {
        hosts: section.list("hosts", host, is_host).unwrap_or_default(),
        token_file: section.secret_file("token_file"),
    };
    section.finish();
    config
}
