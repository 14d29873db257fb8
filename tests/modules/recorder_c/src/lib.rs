//! The recorder that requires another module.

struct Name;

impl recorder::Name for Name {
    const NAME: &'static str = "recorder_c";
}

type Recorder = recorder::Recorder<Name>;

module_api::export_module! {
    Recorder,
    name: "recorder_c",
    requires: ["recorder_b"],
    udp: {
        "serve" => Recorder::serve,
        "echo" => Recorder::echo,
    },
}
