package ledger

// flaw is a mistake that may be planted in the ledger, so that a test can show that histories find it (build tag flaws).
type flaw int

// The mistakes; flaws_on.go says what each is.
const (
	noFlaw flaw = iota
	flawGivenBeforeDisk
	flawUsedIsReleased
	flawRepetitionGivesAnother
	flawStrayIsGivenAgain
	flawStaleIsFresh
	flawCarvedIsGiven
	flawExcludedIsGiven
	flawExclusionNotOnDisk
	flawTakenBackEarly
	flawUsedIsGivenAway
	flawGatewayIsGiven
	flawRangeIsIgnored
	flawNewestFirst
	flawNeverSwept
	flawSweptAtOnce
	flawUsedIsSwept
	flawLeasesStay
	flawQuestionsStay
	flawNoAnswers
	flawClaimsForEver
	flawOldIdentity
	flawEndpointsStay
	flawExplicitIsTaken
	flawExplicitIsOthers
	flawBindsToOldFacts
	flawLateReleaseCounts
	flawFullAtOnce
	flawLoadsNoLeases
	flawLoadsNoCarves
	flawHalfBound
	flawConflictIsFinal
	flawNothingFreezes
	flawFirstSubnetOnly
	flawReleaseStaysInPool
	flawRepetitionStaysInPool
	flawGivenUpIsUsed
	flawGivenUpNotOnDisk
	flawReclaimedByItself
	flawRestingIsHandedBack
	flawNeededIsHandedBack
	flawNeverHandedBack
	flawNamesAreForgotten
	flawNameTakesWhatIsOthers
)
