using Pesto.Bench.Traffic;

return args switch
{
    ["server", .. var rest] => TrafficVerbs.Server(rest),
    ["load", .. var rest] => TrafficVerbs.Load(rest),
    ["connect-loop", .. var rest] => TrafficVerbs.ConnectLoop(rest),
    _ => 2,
};
