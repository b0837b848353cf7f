//! Tests of the variables.

use super::*;

fn read(variables: &[(&str, &str)]) -> (Option<Settings>, Warnings) {
    let variables: HashMap<&str, &str> = variables.iter().copied().collect();
    Settings::read("cokd", "1.2.3", |name| variables.get(name).map(|value| (*value).to_owned()))
}

/// The settings with a collector and these variables, without a warning.
fn with(more: &[(&str, &str)]) -> Settings {
    let (settings, warnings) = read(&[&[(ENDPOINT, "http://c:4318")], more].concat());
    assert_eq!(warnings, Warnings::new());
    settings.unwrap()
}

/// The only warning with a collector and these variables, which keep the export going.
fn warning(more: &[(&str, &str)]) -> (Settings, String) {
    let (settings, mut warnings) = read(&[&[(ENDPOINT, "http://c:4318")], more].concat());
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    (settings.unwrap(), warnings.remove(0))
}

#[test]
fn nothing_is_traced_unless_a_collector_is_named() {
    for variables in [
        &[][..],
        &[(ENDPOINT, "")],
        &[(SAMPLER, "always_on"), ("OTEL_SERVICE_NAME", "x"), ("OTEL_BSP_SCHEDULE_DELAY", "soon")],
        &[(ENDPOINT, "http://c"), ("OTEL_SDK_DISABLED", "TRUE")],
        &[(ENDPOINT, "http://c"), ("OTEL_TRACES_EXPORTER", "none")],
    ] {
        let (settings, warnings) = read(variables);
        assert!(settings.is_none() && warnings.is_empty(), "{variables:?}: {warnings:?}");
    }
}

#[test]
fn the_path_is_appended_to_an_address_for_all_signals() {
    for (variables, expected) in [
        (&[(ENDPOINT, "http://c:4318")][..], "http://c:4318/v1/traces"),
        (&[(ENDPOINT, "https://c/otlp/")], "https://c/otlp/v1/traces"),
        (&[(ENDPOINT, "http://c"), (TRACES_ENDPOINT, "http://d/x")], "http://d/x"),
        (&[("OTEL_TRACES_EXPORTER", "otlp")], "http://localhost:4318/v1/traces"),
    ] {
        assert_eq!(read(variables).0.unwrap().endpoint, expected, "{variables:?}");
    }
}

#[test]
fn a_wrong_address_ends_in_a_warning_and_without_traces() {
    for address in ["collector", "grpc://c:4317", "http://", "http://c d", "http://me:secret@c"] {
        let (settings, warnings) = read(&[(ENDPOINT, address)]);
        assert!(settings.is_none() && warnings.len() == 1, "{address}: {warnings:?}");
        assert!(warnings[0].starts_with("OTEL_EXPORTER_OTLP_ENDPOINT: "), "{}", warnings[0]);
        assert!(!warnings[0].contains("secret"), "{}", warnings[0]);
    }
    let (settings, warnings) = read(&[(ENDPOINT, "http://c"), ("OTEL_TRACES_EXPORTER", "zipkin")]);
    assert!(settings.is_none() && warnings[0].starts_with("OTEL_TRACES_EXPORTER: "));
}

#[test]
fn the_standards_defaults_hold() {
    let settings = with(&[]);
    assert_eq!((settings.rule, settings.timeout, settings.gzip), (Rule::DEFAULT, Duration::from_secs(10), false));
    assert_eq!(settings.batch, Batch { delay: Duration::from_secs(5), queue: 2048, size: 512 });
}

#[test]
fn each_sampler_of_the_standard_is_known() {
    for (name, follows_parent) in [("", false), ("parentbased_", true)] {
        for (root, expected) in
            [("always_on", Root::On), ("always_off", Root::Off), ("traceidratio", Root::Ratio(0.25))]
        {
            let settings = with(&[(SAMPLER, &format!("{name}{root}")), ("OTEL_TRACES_SAMPLER_ARG", "0.25")]);
            assert_eq!(settings.rule, Rule { root: expected, follows_parent }, "{name}{root}");
        }
    }
    assert_eq!(with(&[(SAMPLER, "traceidratio")]).rule.root, Root::Ratio(1.0));
}

#[test]
fn each_wrong_value_costs_one_warning_and_counts_as_not_set() {
    for (variable, value) in [
        (SAMPLER, "jaeger_remote"),
        ("OTEL_SDK_DISABLED", "1"),
        ("OTEL_BSP_SCHEDULE_DELAY", "5s"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "-1"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "0"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "0"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "never"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "lz4"),
    ] {
        let (settings, warning) = warning(&[(variable, value)]);
        assert!(warning.starts_with(&format!("{variable}: ")), "{warning}");
        assert_eq!(settings.rule, Rule::DEFAULT);
        assert_eq!(settings.batch, Batch { delay: Duration::from_secs(5), queue: 2048, size: 512 });
        assert_eq!(settings.timeout, Duration::from_secs(10));
    }
    for ratio in ["2", "-0.1", "NaN", "half"] {
        let (settings, _) = warning(&[(SAMPLER, "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", ratio)]);
        assert_eq!(settings.rule.root, Root::Ratio(1.0));
    }
}

#[test]
fn a_batch_fits_into_the_queue_and_the_queue_is_bounded() {
    let batch = with(&[("OTEL_BSP_MAX_QUEUE_SIZE", "100")]).batch;
    assert_eq!((batch.queue, batch.size), (100, 100));
    assert_eq!(with(&[("OTEL_BSP_MAX_QUEUE_SIZE", "1000000000")]).batch.queue, MAX_QUEUE);
    assert_eq!(with(&[("OTEL_BSP_EXPORT_TIMEOUT", "500")]).timeout, Duration::from_millis(500));
}

#[test]
fn lists_are_decoded_and_their_secrets_stay_out_of_warnings() {
    let list = "authorization=Bearer%20a%2Cb, x-team = web";
    let headers = with(&[("OTEL_EXPORTER_OTLP_HEADERS", list)]).headers;
    assert_eq!((&*headers["authorization"], &*headers["x-team"]), ("Bearer a,b", "web"));
    let (settings, warning) = warning(&[("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "a=1,secret,b=2,c c=secret")]);
    assert_eq!(settings.headers.len(), 2);
    assert!(warning.contains("part 2") && !warning.contains("secret"), "{warning}");
}

#[test]
fn the_service_is_named_by_the_user_or_by_the_program() {
    let name = |more: &[(&str, &str)]| {
        let resource = with(more).resource;
        let mut names = resource.iter().filter(|attribute| attribute.key.as_str() == "service.name");
        names.next_back().unwrap().value.to_string()
    };
    assert_eq!(name(&[]), "cokd");
    assert_eq!(name(&[("OTEL_RESOURCE_ATTRIBUTES", "service.name=a%20b")]), "a b");
    assert_eq!(name(&[("OTEL_RESOURCE_ATTRIBUTES", "service.name=a"), ("OTEL_SERVICE_NAME", "b")]), "b");
}
