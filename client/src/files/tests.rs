// Symbolic links and a named pipe need a Unix.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use http_body_util::BodyExt as _;

use super::*;

/// A folder with some files, and a secret next to it.
fn site() -> (tempfile::TempDir, Folder) {
    let outer = tempfile::tempdir().unwrap();
    let root = outer.path().join("site");
    for folder in ["site/sub", "site/.git", "site/with index", "outside"] {
        fs::create_dir_all(outer.path().join(folder)).unwrap();
    }
    for (name, text) in [
        ("site/a.txt", "0123456789"),
        ("site/page.html", "<p>page"),
        ("site/100%.bin", "x"),
        ("site/sub/b.txt", "b"),
        ("site/.env", "secret"),
        ("site/.git/config", "secret"),
        ("site/with index/index.html", "index"),
        ("outside/key", "secret"),
        ("secret", "secret"),
    ] {
        fs::write(outer.path().join(name), text).unwrap();
    }
    for (target, link) in [
        ("a.txt", "inner"),
        ("sub", "inner-folder"),
        ("../secret", "out"),
        ("../outside", "out-folder"),
        (".env", "dot"),
        (".git", "dot-folder"),
        ("loop", "loop"),
        ("nothing", "broken"),
        ("sub/../a.txt", "roundabout"),
        ("sub/../../site/a.txt", "out-and-in"),
    ] {
        symlink(target, root.join(link)).unwrap();
    }
    symlink(outer.path().join("secret"), root.join("absolute")).unwrap();
    symlink(root.join("a.txt"), root.join("absolute-inner")).unwrap();
    let folder = Folder::new(&root).unwrap();
    (outer, folder)
}

struct Answered {
    status: u16,
    headers: HeaderMap,
    body: String,
}

async fn ask(folder: &Folder, method: Method, path: &str, fields: &[(&'static str, &str)]) -> Answered {
    let mut request = Request::new(empty());
    *request.method_mut() = method;
    // As the tunnel has it: a path that begins with two slashes names no host.
    *request.uri_mut() = path.parse::<http::uri::PathAndQuery>().unwrap().into();
    for (name, value) in fields {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    let (parts, body) = folder.answer(request).await.unwrap().into_parts();
    let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    Answered { status: parts.status.as_u16(), headers: parts.headers, body }
}

async fn get(folder: &Folder, path: &str) -> Answered {
    ask(folder, Method::GET, path, &[]).await
}

#[tokio::test]
async fn files_have_their_type_and_folders_their_index() {
    let (_outer, folder) = site();
    for (path, kind, body) in [
        ("/a.txt", "text/plain; charset=utf-8", "0123456789"),
        ("/a.txt?v=1", "text/plain; charset=utf-8", "0123456789"),
        ("/page.html", "text/html; charset=utf-8", "<p>page"),
        ("/100%25.bin", "application/octet-stream", "x"),
        ("/sub/b.txt", "text/plain; charset=utf-8", "b"),
        ("/%73ub/b%2etxt", "text/plain; charset=utf-8", "b"),
        ("/with%20index/", "text/html; charset=utf-8", "index"),
        ("/inner", "application/octet-stream", "0123456789"),
        ("/roundabout", "application/octet-stream", "0123456789"),
        ("/inner-folder/b.txt", "text/plain; charset=utf-8", "b"),
    ] {
        let answer = get(&folder, path).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, body), "{path}");
        assert_eq!(answer.headers[CONTENT_TYPE], kind, "{path}");
        assert_eq!(answer.headers[CONTENT_LENGTH], body.len().to_string(), "{path}");
        assert_eq!(answer.headers[X_CONTENT_TYPE_OPTIONS], "nosniff");
        let head = ask(&folder, Method::HEAD, path, &[]).await;
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}");
        assert_eq!(head.headers[CONTENT_LENGTH], body.len().to_string(), "{path}");
    }
    for (path, to) in [("/sub", "/sub/"), ("/with%20index?a=b", "/with%20index/?a=b")] {
        let answer = get(&folder, path).await;
        assert_eq!((answer.status, answer.headers[LOCATION].to_str().unwrap()), (307, to));
    }
}

#[tokio::test]
async fn nothing_leads_out_of_the_folder_or_to_a_name_with_a_dot() {
    let (outer, folder) = site();
    let absolute = outer.path().join("secret").display().to_string();
    for path in [
        "/.env",
        "/%2eenv",
        "/.git/config",
        "/sub/../.env",
        "/sub/%2e%2e/a.txt",
        "/../secret",
        "/..%2fsecret",
        "/%2e%2e/secret",
        "/%2e%2e%2fsecret",
        "/%252e%252e%252fsecret",
        "/..%5csecret",
        "/..%c0%afsecret",
        "/sub/..;/secret",
        "/a.txt%00.html",
        "/out",
        "/out/",
        "/out-folder",
        "/out-folder/",
        "/out-folder/key",
        "/out-and-in",
        "/absolute",
        "/absolute-inner",
        "/dot",
        "/dot-folder/config",
        "/dot-folder/",
        "/loop",
        "/broken",
        "/none",
        "/a.txt/",
        "/a.txt/x",
        "//",
        "//a.txt",
        "/sub//b.txt",
        &absolute,
        &format!("/{absolute}"),
        &format!("/{}", absolute.replace('/', "%2f")),
        &format!("/{}", "x".repeat(300)),
        &format!("/{}", "x/".repeat(5000)),
    ] {
        for method in [Method::GET, Method::HEAD] {
            let answer = ask(&folder, method, path, &[]).await;
            assert!(answer.status == 404 && !answer.body.contains("secret"), "{path}: {}", answer.status);
        }
    }
}

#[tokio::test]
async fn a_listing_has_what_is_served() {
    let (_outer, folder) = site();
    let named: Vec<u8> = b"not \xff utf-8".to_vec();
    fs::write(folder.0.join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(&named)), "").unwrap();
    fs::write(folder.0.join("<b>'&\".txt"), "").unwrap();
    let answer = get(&folder, "/").await;
    assert_eq!((answer.status, answer.headers[CONTENT_TYPE].to_str().unwrap()), (200, "text/html; charset=utf-8"));
    assert_eq!(answer.headers[CONTENT_SECURITY_POLICY], listing::POLICY);
    let links: Vec<&str> = answer.body.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert_eq!(
        links,
        [
            "./inner-folder/",
            "./sub/",
            "./with%20index/",
            "./100%25.bin",
            "./%3Cb%3E%27%26%22.txt",
            "./a.txt",
            "./inner",
            "./page.html",
            "./roundabout",
        ]
    );
    assert!(!answer.body.contains("<b>"), "{}", answer.body);
    let answer = get(&folder, "/sub/").await;
    assert!(answer.body.contains("href=\"../\"") && answer.body.contains("<h1>/sub/</h1>"), "{}", answer.body);
}

#[tokio::test]
async fn conditions_and_ranges_are_of_the_file() {
    let (_outer, folder) = site();
    let whole = get(&folder, "/a.txt").await;
    let (tag, date) = (whole.headers[ETAG].to_str().unwrap(), whole.headers[LAST_MODIFIED].to_str().unwrap());
    for (field, value) in [("if-none-match", tag), ("if-modified-since", date)] {
        for method in [Method::GET, Method::HEAD] {
            let answer = ask(&folder, method, "/a.txt", &[(field, value)]).await;
            assert_eq!((answer.status, answer.body.as_str()), (304, ""), "{field}");
            assert_eq!(answer.headers[ETAG], tag);
        }
    }
    let part = ask(&folder, Method::GET, "/a.txt", &[("range", "bytes=2-4"), ("if-range", tag)]).await;
    assert_eq!((part.status, part.body.as_str()), (206, "234"));
    assert_eq!(
        (&part.headers[CONTENT_RANGE], &part.headers[CONTENT_LENGTH]),
        (&"bytes 2-4/10".parse().unwrap(), &"3".parse().unwrap())
    );
    let none = ask(&folder, Method::GET, "/a.txt", &[("range", "bytes=10-")]).await;
    assert_eq!((none.status, &none.headers[CONTENT_RANGE]), (416, &"bytes */10".parse().unwrap()));
    fs::write(folder.0.join("a.txt"), "abcdefghij").unwrap();
    let changed = ask(&folder, Method::GET, "/a.txt", &[("range", "bytes=2-4"), ("if-range", tag)]).await;
    assert_eq!((changed.status, changed.body.as_str()), (200, "abcdefghij"));
    let failed = ask(&folder, Method::GET, "/a.txt", &[("if-match", tag)]).await;
    assert_eq!(failed.status, 412);
}

#[tokio::test]
async fn files_are_only_read() {
    let (_outer, folder) = site();
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "PROPFIND"] {
        let answer = ask(&folder, method.parse().unwrap(), "/a.txt", &[]).await;
        assert_eq!((answer.status, answer.headers[ALLOW].to_str().unwrap()), (405, "GET, HEAD"), "{method}");
    }
}

#[tokio::test]
async fn a_file_that_shrinks_breaks_off() {
    let (_outer, folder) = site();
    let path = folder.0.join("big");
    fs::write(&path, vec![b'x'; 300_000]).unwrap();
    let request = Request::get("/big").body(empty()).unwrap();
    let mut body = folder.answer(request).await.unwrap().into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(first.len() <= 64 * 1024, "{}", first.len());
    fs::File::options().write(true).open(&path).unwrap().set_len(100_000).unwrap();
    let error = loop {
        match body.frame().await.expect("no end in order") {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("became shorter"), "{error}");
}

#[tokio::test]
async fn a_pipe_is_no_file_and_a_folder_may_be_replaced() {
    let (_outer, folder) = site();
    assert!(std::process::Command::new("mkfifo").arg(folder.0.join("pipe")).status().unwrap().success());
    assert_eq!(get(&folder, "/pipe").await.status, 404);
    fs::rename(&folder.0, folder.0.with_extension("old")).unwrap();
    let request = Request::get("/a.txt").body(empty()).unwrap();
    let error = folder.answer(request).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot read in {}: ", folder.0.display())), "{error}");
    fs::create_dir(&folder.0).unwrap();
    fs::write(folder.0.join("a.txt"), "new").unwrap();
    assert_eq!(get(&folder, "/a.txt").await.body, "new");
}

#[test]
fn a_folder_must_be_there() {
    let (outer, _folder) = site();
    for (path, why) in [("none", "No such file"), ("secret", "it is no folder")] {
        let error = Folder::new(&outer.path().join(path)).unwrap_err().to_string();
        assert!(error.starts_with("cannot serve the folder ") && error.contains(why), "{error}");
    }
    let service = |path: &Path| LocalService::folder(path).unwrap();
    let here = std::env::current_dir().unwrap();
    assert_eq!(service(Path::new(".")), service(&here));
    assert_ne!(service(&here), service(outer.path()));
    assert_eq!(service(&here).to_string(), format!("the files in {}", here.display()));
}
