namespace Pesto.Tests;

/// <summary>Tests that need the machine, or most of what a process may have, for themselves: they run after all others, one by one.</summary>
[CollectionDefinition(Name, DisableParallelization = true)]
public sealed class Alone
{
    public const string Name = "alone";
}
