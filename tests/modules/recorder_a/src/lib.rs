//! The recorder without flags or dependencies.

struct Name;

impl recorder::Name for Name {
    const NAME: &'static str = "recorder_a";
}

type Recorder = recorder::Recorder<Name>;

module_api::export_module! {
    Recorder,
    name: "recorder_a",
    udp: {
        "serve" => Recorder::serve,
        "echo" => Recorder::echo,
    },
}
