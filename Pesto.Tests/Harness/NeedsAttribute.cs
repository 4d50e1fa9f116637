using System.Reflection;
using Xunit.v3;

namespace Pesto.Tests.Harness;

/// <summary>
/// Names programs that a test starts and that not every machine has. Without them it is skipped. `--filter Needs=programs` runs all tests
/// that need some, `--filter Program=NAME` those that need one.
/// </summary>
[AttributeUsage(AttributeTargets.Class | AttributeTargets.Method)]
sealed class NeedsAttribute(params string[] programs) : BeforeAfterTestAttribute, ITraitAttribute
{
    public const string Program = "Program";

    public IReadOnlyCollection<KeyValuePair<string, string>> GetTraits() =>
        [new("Needs", "programs"), .. programs.Select(program => new KeyValuePair<string, string>(Program, program))];

    public override void Before(MethodInfo methodUnderTest, IXunitTest test)
    {
        foreach (string program in programs)
            Programs.SkipWithout(program);
    }
}
