//! When refusals end a client.

use rustls::RootCertStore;

use super::*;
use crate::events::Hub;
use crate::options::HostHeader;
use crate::proxy::{Config, Proxy, Watch};
use crate::target::Target;
use crate::trust::client_config;
use crate::upgrades::Upgrades;

const TUNNEL: TunnelHandle = TunnelHandle(0);

/// A client with one tunnel, which has asked.
fn asked() -> Tunnels {
    let config = Config {
        target: "3000".parse::<Target>().unwrap(),
        tls: client_config(RootCertStore::empty()).unwrap(),
        fingerprints: None,
        upgrades: Upgrades::default(),
        host_header: HostHeader::Preserve,
        connect_timeout: LONG_WAIT,
        response_timeout: None,
        log_queries: false,
        watch: Watch::new(Hub::new(), TUNNEL),
    };
    let in_flight = Arc::default();
    let slot = Slot::new(Proxy::new(config, Arc::clone(&in_flight)).unwrap(), in_flight);
    let patience = Patience { name_timeout: Duration::ZERO, keep_trying: false, outlasts_refusals: false };
    let mut tunnels = Tunnels::new(Arc::default(), patience);
    let wanted = Wanted { label: None, subdomain: None, rules: Arc::default(), slot };
    tunnels.apply(Command::Open(TUNNEL, wanted), None);
    tunnels.entries.get_mut(&TUNNEL).unwrap().state = State::Asked(1);
    tunnels
}

fn refuse(tunnels: &mut Tunnels, code: ErrorCode) {
    let error = ErrorMessage { code, message: "no".to_owned(), retryable: false };
    tunnels.refused(1, error, &mut |_| {});
}

#[tokio::test]
async fn a_lack_of_room_ends_only_a_client_that_was_not_online() {
    let mut tunnels = asked();
    refuse(&mut tunnels, ErrorCode::LimitReached);
    assert!(tunnels.all_refused().is_some());
    for (code, ends) in [(ErrorCode::LimitReached, false), (ErrorCode::Unauthorized, true)] {
        let mut tunnels = asked();
        tunnels.entries.get_mut(&TUNNEL).unwrap().url = Some("https://demo.example".to_owned());
        refuse(&mut tunnels, code);
        assert_eq!(tunnels.all_refused().is_some(), ends);
        assert_eq!(tunnels.next_due().is_some(), !ends);
    }
}
