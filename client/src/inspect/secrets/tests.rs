use proptest::prelude::*;

use super::*;

fn field(name: &str, value: &str) -> String {
    let masked = Secrets::Masked.field(name, value.as_bytes()).into_owned();
    assert_eq!(&*Secrets::Revealed.field(name, value.as_bytes()), value.as_bytes());
    String::from_utf8(masked).unwrap()
}

fn target(target: &str) -> String {
    String::from_utf8(Secrets::Masked.target(target.as_bytes()).into_owned()).unwrap()
}

#[test]
fn secret_fields_keep_what_is_no_secret() {
    assert_eq!(field("Authorization", "Bearer abc.def"), "Bearer •••");
    assert_eq!(field("proxy-authorization", "Basic dXNlcjpwYXNz"), "Basic •••");
    assert_eq!(field("authorization", "only-a-token"), "•••");
    assert_eq!(field("authorization", "a-very-long-token-with-a space"), "•••");
    assert_eq!(field("cookie", "a=1; session=x=y;flag"), "a=•••; session=•••;•••");
    assert_eq!(field("set-cookie", "id=secret; Path=/; HttpOnly"), "id=•••; Path=/; HttpOnly");
    for name in [
        "x-api-key",
        "X-Auth-Token",
        "x-csrf-token",
        "x-amz-security-token",
        "private-token",
        "api-key",
        "apikey",
        "x-vault-token",
        "x-goog-iap-jwt-assertion",
        "ocp-apim-subscription-key",
        "x-client-secret",
        "x-session-id",
        "x-password",
    ] {
        assert_eq!(field(name, "value"), MASK, "{name}");
    }
    for name in [
        "accept",
        "sec-websocket-key",
        "idempotency-key",
        "www-authenticate",
        "access-control-allow-headers",
        "x-hub-signature-256",
        "host",
        "etag",
        "x-request-id",
        "content-type",
        "keep-alive",
    ] {
        assert_eq!(field(name, "value"), "value", "{name}");
    }
}

#[test]
fn urls_in_fields_hide_their_secrets() {
    assert_eq!(field("referer", "https://a.example/x?token=1&q=2"), "https://a.example/x?token=•••&q=2");
    assert_eq!(field("location", "/cb#access_token=abc&state=1"), "/cb#access_token=•••&state=1");
    assert_eq!(field("location", "https://me:pw@a.example/x"), "https://•••@a.example/x");
    assert_eq!(field("sec-websocket-protocol", "graphql-ws, chat"), "graphql-ws, chat");
    let token = "base64url.bearer.authorization.k8s.io.c2VjcmV0LXRva2Vu";
    assert_eq!(field("sec-websocket-protocol", &format!("{token}, v4.channel.k8s.io")), "•••, v4.channel.k8s.io");
}

#[test]
fn secret_parameters_keep_their_names() {
    assert_eq!(
        target("/a?x=1&access_token=2;api_key=3&sig=4&y#token=5"),
        "/a?x=1&access_token=•••;api_key=•••&sig=•••&y#token=•••"
    );
    assert_eq!(
        target("/a?accessToken=1&clientSecret=2&X-Amz-Signature=3&PHPSESSID=4"),
        "/a?accessToken=•••&clientSecret=•••&X-Amz-Signature=•••&PHPSESSID=•••"
    );
    assert_eq!(target("/a?%74oken=1&user%5Bpassword%5D=2"), "/a?%74oken=•••&user%5Bpassword%5D=•••");
    for open in [
        "/a",
        "/a?",
        "/token=x/y",
        "/a;token=x",
        "/a?max_tokens=5&monkey=1&keyboard=2&token=&signal=3&code=4&page=2",
        "*",
        "/?token",
    ] {
        assert_eq!(target(open), open);
    }
    let form = Secrets::Masked.form(b"user=me&password=x&x=1").into_owned();
    assert_eq!(form, "user=me&password=•••&x=1".as_bytes());
    assert_eq!(Secrets::Masked.form(b"/token=1"), "/token=•••".as_bytes());
    assert_eq!(Secrets::Masked.value("password", "x"), MASK);
    assert_eq!((Secrets::Masked.value("name", "x"), Secrets::Revealed.value("password", "x")), ("x", "x"));
}

#[test]
fn an_edited_target_gets_its_secrets_back() {
    let back = |edited: &str, original: &str| {
        String::from_utf8(unmasked_target(edited.as_bytes(), original.as_bytes())).unwrap()
    };
    assert_eq!(back("/new?x=2&token=•••", "/old?token=abc&x=1"), "/new?x=2&token=abc");
    assert_eq!(
        back("/?key=•••&key=mine&key=%E2%80%A2%E2%80%A2%e2%80%a2", "/?key=1&key=2&key=3"),
        "/?key=1&key=mine&key=3"
    );
    assert_eq!(back("/?token=•••", "/"), "/?token=•••");
    assert_eq!(back("/token=•••", "/?token=1"), "/token=•••");
}

proptest! {
    /// What is masked comes back by unmasking, and nothing else changes.
    #[test]
    fn masks_are_undone(target in "/[a-z=]{0,5}(\\?(|(token|key|x|sig)(=|=[a-z=%2]{0,6}|)([&;#?](token|key|x|sig|)(=|=[a-z=%2]{0,6}|)){0,5}))?") {
        let masked = Secrets::Masked.target(target.as_bytes()).into_owned();
        prop_assert_eq!(String::from_utf8(unmasked_target(&masked, target.as_bytes())).unwrap(), target);
    }

    /// Any bytes can be given.
    #[test]
    fn any_bytes_can_be_given(name in "\\PC{0,20}", value in prop::collection::vec(any::<u8>(), 0..60)) {
        let _masked = (Secrets::Masked.field(&name, &value), Secrets::Masked.target(&value), Secrets::Masked.form(&value));
        let _back = unmasked_target(&value, &value);
        for name in ["cookie", "set-cookie", "authorization", "location", "sec-websocket-protocol"] {
            let _masked = Secrets::Masked.field(name, &value);
        }
    }
}
