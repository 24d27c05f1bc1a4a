//go:build flaws

package ledger

var planted = noFlaw

// Plant makes every ledger have a mistake from now on, which must be one of Flaws, or "" for none.
func Plant(name string) {
	planted = noFlaw
	for f, n := range flawNames {
		if n == name {
			planted = flaw(f)
		}
	}
}

// Flaws are the mistakes that can be planted.
func Flaws() []string { return flawNames[1:] }

func flawed(f flaw) bool { return planted == f }

var flawNames = [...]string{
	noFlaw:                     "",
	flawGivenBeforeDisk:        "an address is given although the disk has failed",
	flawUsedIsReleased:         "an address that an endpoint uses is released",
	flawRepetitionGivesAnother: "the same request again gets another address",
	flawStrayIsGivenAgain:      "the same request again gets an address that is not ours any more",
	flawStaleIsFresh:           "facts from before the binding are believed",
	flawCarvedIsGiven:          "an address that was carved out of a block is given by its owner",
	flawExcludedIsGiven:        "an address that is being given to another host is given here",
	flawExclusionNotOnDisk:     "that an address is given to another host is not on disk",
	flawTakenBackEarly:         "an exclusion ends when its answer is lost",
	flawUsedIsGivenAway:        "an address in use is given to another host",
	flawGatewayIsGiven:         "gateways and broadcast addresses are given",
	flawRangeIsIgnored:         "dynamic addresses come from outside the range",
	flawNewestFirst:            "what was released last is given first",
	flawNeverSwept:             "leases that nobody uses stay",
	flawSweptAtOnce:            "leases are released before their endpoint may have come",
	flawUsedIsSwept:            "leases are swept from endpoints",
	flawLeasesStay:             "leases of a removed network stay",
	flawQuestionsStay:          "questions are not withdrawn",
	flawNoAnswers:              "questions of other hosts are not answered",
	flawClaimsForEver:          "a claim that failed is never over",
	flawOldIdentity:            "blocks of the host's old identity count",
	flawEndpointsStay:          "the end of an endpoint is forgotten",
	flawExplicitIsTaken:        "an address that was asked for is given although it is in use",
	flawExplicitIsOthers:       "an address that was asked for is given although it lies in another's block",
	flawBindsToOldFacts:        "a network is bound without a look at the newest facts",
	flawLateReleaseCounts:      "a release that is repeated takes the address from who has it since",
	flawFullAtOnce:             "who finds no block does not look once more",
	flawLoadsNoLeases:          "a start forgets leases that have no endpoint yet",
	flawLoadsNoCarves:          "a start forgets what is being given to other hosts",
	flawHalfBound:              "what a failed binding has written stays",
	flawConflictIsFinal:        "a conflict is not tried again",
	flawNothingFreezes:         "blocks are not frozen although the disk went back",
	flawFirstSubnetOnly:        "who finds nothing in the first subnet does not look into the next",
	flawReleaseStaysInPool:     "an address that comes back with the first subnet's pool is not looked for in the next",
	flawGivenUpIsUsed:          "addresses of a block that was given up are handed out",
	flawGivenUpNotOnDisk:       "that a block was given up is not on disk",
	flawReclaimedByItself:      "a block that was given up is used again without a new grant",
	flawRestingIsHandedBack:    "a block is given back while addresses of it rest",
	flawNeededIsHandedBack:     "a block is given back although it is needed",
	flawNeverHandedBack:        "nothing is given back",
	flawRepetitionStaysInPool:  "the same request again gets another address if the first was of the next subnet",
	flawNamesAreForgotten:      "a container's name does not bring its address back",
	flawNameTakesWhatIsOthers:  "a container's name brings its address back although it is another's",
}
